"""A whole job held against a list of known lenses: each is followed to where it was lost."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
import pyarrow.parquet as pq
import pytest
import yaml

from lenspipe.catalogue.query import query
from lenspipe.config import load_survey
from lenspipe.job import run_survey
from lenspipe.metrics import RunMetrics
from lenspipe.run.verify import verify
from lenspipe.run_directory import REPORT, RunDirectory
from lenspipe.telling.events import Events
from lenspipe.telling.progress import make_progress
from tests.toy_survey import make_survey

pytestmark = pytest.mark.usefixtures("ray_cluster")
TOP = 20


def run_job(survey: Path) -> RunDirectory:
    with make_progress() as progress:
        run_survey(load_survey(survey), Events(RunMetrics("toy"), progress))
    return RunDirectory(str(survey.parent / "run"))


def fates(run: RunDirectory) -> dict[str, tuple[str, str | None]]:
    found = query(run, "SELECT name, fate, reason FROM known_lenses").to_pylist()
    return {row["name"]: (row["fate"], row["reason"]) for row in found}


def test_each_known_lens_is_followed_to_where_it_was_lost(tmp_path: Path) -> None:
    survey = make_survey(tmp_path)
    catalogue = pq.read_table(tmp_path / "catalogue" / "part.parquet").to_pandas()
    red, bright = catalogue.g_mag - catalogue.i_mag > 1.0, catalogue.i_mag < 21.0
    examples = {
        "cut": catalogue[~bright].iloc[0],
        "rejected": catalogue[bright & ~red].iloc[0],
        "failed": catalogue[bright & red].iloc[0],
    }
    with h5py.File(tmp_path / "cutouts.h5", "a") as file:
        file["images"][int(examples["failed"].row)] = np.nan
    run = run_job(survey)
    scored = query(run, "SELECT object_id, ra, dec FROM scores ORDER BY score DESC").to_pylist()
    best, last = scored[0], scored[-1]
    lenses = {name: (row.ra, row.dec) for name, row in examples.items()}
    lenses |= {"found": (best["ra"], best["dec"]), "faint": (last["ra"], last["dec"])}
    lenses |= {"nowhere": (best["ra"] + 0.01, best["dec"]), "far": (10.0, 60.0)}
    lines = [f"{name},{ra:.7f},{dec:.7f}" for name, (ra, dec) in lenses.items()]
    (tmp_path / "lenses.csv").write_text("name,ra,dec\n" + "\n".join(lines) + "\n")
    content = yaml.safe_load(survey.read_text())
    content["known_lenses"] = {"path": "lenses.csv", "radius_arcsec": 1.0}
    survey.write_text(yaml.safe_dump(content, sort_keys=False))

    run = run_job(survey)  # nothing is scored again: the list is looked for in what is there
    found = fates(run)
    assert found["found"] == ("candidate", None)
    assert found["faint"] == ("below_threshold", None)
    assert found["cut"] == ("cut", "bright_enough")
    assert found["rejected"] == ("rejected", None)
    assert found["failed"] == ("failed", "bad_pixels")
    assert found["nowhere"] == ("not_in_catalogue", None)
    assert "far" not in found
    told = query(run, "SELECT known_lens FROM candidates WHERE rank = 1")
    assert told["known_lens"].to_pylist() == ["found"]
    page = run.store.read(REPORT).decode()
    assert "Known lenses" in page
    assert "bright_enough" in page
    assert verify(run) == []

    (tmp_path / "lenses.csv").write_text(f"name,ra,dec\nother,{best['ra']},{best['dec']}\n")
    run = run_job(survey)
    assert fates(run) == {"other": ("candidate", None)}
    assert verify(run) == []
