"""Whole jobs on toy surveys, and what they leave, for tests that compare them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa

from lenspipe.catalogue.funnel import Funnel
from lenspipe.config import load_survey
from lenspipe.job import run_survey
from lenspipe.metrics import RunMetrics
from lenspipe.run_directory import RunDirectory
from lenspipe.telling.events import Events
from lenspipe.telling.progress import make_progress
from tests.toy_survey import make_survey


def run(survey: Path, **options: Any) -> Funnel:
    with make_progress() as progress:
        info = run_survey(load_survey(survey), Events(RunMetrics("toy"), progress), **options)
    return info.funnel


def results(survey: Path) -> tuple[pa.Table, dict[int, str]]:
    """Scores in the order of ids, and id -> reason of the failures."""
    directory = RunDirectory(str(survey.parent / "run"))
    scores = directory.read_folder("scores", ["score"])
    failures = directory.read_folder("failures", ["select", "score"])
    assert scores is not None
    reasons = (
        dict(zip(failures["object_id"].to_pylist(), failures["reason"].to_pylist(), strict=True))
        if failures is not None
        else {}
    )
    return scores.sort_by("object_id"), reasons


def run_undisturbed(folder: Path) -> Path:
    """A survey that ran once, with nothing in its way. Needs a Ray that runs."""
    survey = make_survey(
        folder,
        runtime={"shard_rows": 64, "provider": "cpu", "scorers": 2, "failure_limit": 1.0},
    )
    run(survey)
    return survey


def assert_same_scores(survey: Path, other: Path) -> None:
    """Row by row the same, but for the order in which rows were committed."""
    (scores, reasons), (expected, others) = results(survey), results(other)
    assert scores.equals(expected)
    assert reasons == others
