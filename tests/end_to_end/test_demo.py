"""What `make demo` does: the simulated sky, the job with the shipped models, the comparison."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pyarrow.dataset as pads
import pyarrow.parquet as pq
import pytest
import zarr

from lenspipe.catalogue.candidates import array_of
from lenspipe.config import load_survey
from lenspipe.job import run_survey
from lenspipe.metrics import RunMetrics
from lenspipe.run.verify import verify
from lenspipe.run_directory import RunDirectory
from lenspipe.telling.events import Events
from lenspipe.telling.progress import SilentProgress
from training.demo import describe
from training.simulate.sky import SCALES, make_sky

pytestmark = pytest.mark.usefixtures("ray_cluster")


def run_demo(folder: Path, scale: str, workers: int, failure_limit: float) -> str:
    """The three steps of `make demo`; returns what is printed at the end."""
    sky = folder / "sky"
    assert make_sky(sky, 1, SCALES[scale], workers)
    survey = load_survey(sky / "survey.yaml")
    runtime = survey.runtime.model_copy(update={"failure_limit": failure_limit})
    survey = survey.model_copy(update={"runtime": runtime})
    run_survey(survey, Events(RunMetrics(survey.name), SilentProgress()))
    return describe(sky, str(folder / "run"))


def check_run(folder: Path, text: str) -> None:
    run = RunDirectory(str(folder / "run"))
    assert verify(run) == []
    funnel = json.loads(run.store.read("funnel.json"))
    assert funnel["accounted"]
    assert funnel["sources_in"] == pads.dataset(folder / "sky" / "catalogue").count_rows()
    catalogue = pads.dataset(folder / "run" / "catalogue" / "dataset")
    assert catalogue.count_rows() == funnel["scored"] > 0
    candidates = zarr.open_group(folder / "run" / "candidates.zarr", mode="r")
    n = funnel["candidates"]
    assert array_of(candidates, "object_id").shape == (n,)
    assert array_of(candidates, "i_mag").shape == (n,)
    if n:
        embedding = np.asarray(array_of(candidates, "embedding")[:])
        has_stamp = np.asarray(array_of(candidates, "has_stamp")[:])
        assert embedding.shape[1] > 100
        assert np.isfinite(embedding[has_stamp]).all()
    truth = pq.read_table(folder / "sky" / "truth.parquet")
    lenses = truth.filter(pads.field("kind") == "lens")["object_id"].to_pylist()
    ids = set(catalogue.to_table(columns=["object_id"])["object_id"].to_pylist())
    assert re.search(rf"^  scored +{len(ids & set(lenses))} +this stage", text, re.MULTILINE)
    assert (folder / "run" / "report" / "index.html").stat().st_size > 10_000


@pytest.mark.timeout(300)
def test_a_small_demo(tmp_path: Path) -> None:
    check_run(tmp_path, run_demo(tmp_path, "small", workers=1, failure_limit=1.0))  # mostly edges


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_whole_demo_finds_lenses_and_little_else(tmp_path: Path) -> None:
    text = run_demo(tmp_path, "demo", workers=2, failure_limit=0.03)
    check_run(tmp_path, text)
    lines = {line.split()[0]: line for line in text.splitlines() if line.strip()}
    # Far below what the shipped models reach, far above what chance would (80 of 20,000 sources).
    completeness = float(lines["completeness"].split("=")[1].split()[0])
    purity = float(lines["purity"].split("=")[1].split()[0])
    assert completeness > 0.25
    assert purity > 0.4
