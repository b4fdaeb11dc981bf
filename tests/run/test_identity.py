"""What a resume is compared by."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from lenspipe.check import check_survey
from lenspipe.config import load_survey
from lenspipe.errors import ResumeRefusedError
from lenspipe.metrics import RunMetrics
from lenspipe.run import identity
from lenspipe.run.identity import check_same_run
from lenspipe.run.opening import Job, check_and_open, write_state
from lenspipe.run_directory import RUN, RunDirectory
from lenspipe.telling.events import Events
from lenspipe.telling.progress import SilentProgress
from tests.toy_survey import make_survey

# Of the toy survey, as a lenspipe wrote it that knew less of survey files.
OF_OLD: dict[str, Any] = {
    "name": "toy",
    "sources": {
        "path": "catalogue/",
        "columns": {"id": "object_id", "ra": "ra", "dec": "dec"},
        "missing_values": [],
    },
    "cuts": {"bright_enough": "i_mag < 21.0"},
    "photometry": {"model": "photometry.onnx", "keep": {"score_above": 0.0, "fraction": None}},
    "ensemble": "toy.yaml",
    "candidates": {"fpr": None, "score_above": None, "top": 20},
    "publish": {"partition_rows": 1000000, "mosaic": 100},
    "cutouts": {
        "reader": "hdf5",
        "pixel_scale_arcsec": 0.25,
        "mask": {"values": [], "hdu": None, "file": None},
        "crop": False,
        "missing_band": "fail",
        "path": "cutouts.h5",
        "bands": ["g", "r", "i"],
        "row": "row",
        "dataset": "images",
    },
    "cut_order": ["bright_enough"],
}


def _begun(folder: Path, told: Mapping[str, Any]) -> tuple[RunDirectory, dict[str, Any]]:
    """A run of the toy survey whose file said this of it, and what it is today."""
    checked = check_survey(load_survey(make_survey(folder, rows=40)))
    run = RunDirectory(str(folder / "run"))
    write_state(run, checked, "interrupted")
    run.write_json(RUN, {**(run.read_json(RUN) or {}), "survey": told})
    return run, checked.identity()


def test_a_run_of_an_older_lenspipe_is_the_same_run(tmp_path: Path) -> None:
    run, now = _begun(tmp_path, OF_OLD)
    assert check_same_run(run, now) == []


@pytest.mark.parametrize(
    ("changes", "refusal"),
    [
        ({"cutouts": {**OF_OLD["cutouts"], "crop": True}}, r"survey\.cutouts\.crop: expected True"),
        ({"sources": {**OF_OLD["sources"], "missing_values": [-999]}}, r"sources\.missing_values"),
        (
            {"cutouts": {**OF_OLD["cutouts"], "once": 1}},
            r"survey\.cutouts\.\w+: expected .* more differences",
        ),
        ({"cut_order": ["other"]}, r"survey\.cut_order: expected \['other'\]"),
    ],
)
def test_what_an_older_run_said_otherwise_is_a_difference(
    tmp_path: Path, changes: dict[str, Any], refusal: str
) -> None:
    run, now = _begun(tmp_path, {**OF_OLD, **changes})
    with pytest.raises(ResumeRefusedError, match=refusal):
        check_same_run(run, now)


def test_a_key_whose_default_is_not_what_was_done_before_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, now = _begun(tmp_path, OF_OLD)
    told = {"cutouts.resample": True, "publish.explain": 7, "photometry.none.such": 1}
    monkeypatch.setattr(identity, "BEFORE_THE_KEY", told)
    with pytest.raises(ResumeRefusedError, match=r"survey\.cutouts\.resample: expected True"):
        check_same_run(run, now)
    monkeypatch.setattr(identity, "BEFORE_THE_KEY", {"publish.explain": 7})
    assert check_same_run(run, now) == ["survey.publish.explain: 7 before, 100 now"]


class _Listener(SilentProgress):
    def __init__(self) -> None:
        self.told: list[str] = []

    def message(self, text: str) -> None:
        self.told.append(text)


def _opened(survey: Path, kept: list[str]) -> tuple[Job, list[str]]:
    content = yaml.safe_load(survey.read_text())
    content["sources"]["keep_columns"] = kept
    survey.write_text(yaml.safe_dump(content, sort_keys=False))
    listener = _Listener()
    with check_and_open(load_survey(survey), Events(RunMetrics("toy"), listener)) as job:
        return job, listener.told


def test_kept_columns_may_be_any_that_the_run_holds(tmp_path: Path) -> None:
    survey = make_survey(tmp_path, rows=40)
    _opened(survey, ["i_mag"])
    for kept in ([], ["row", "i_mag"], ["row"]):
        job, told = _opened(survey, kept)
        # Rows that are selected again are of the same columns as those that are there.
        assert job.checked.select_plan.carried == ("i_mag", "row")
        assert job.checked.publish_settings().keep_columns == tuple(kept)
        assert any("another survey.sources.keep_columns" in line for line in told)
    assert "keep_columns: ['row', 'i_mag'] before, ['row'] now" in " ".join(told)
    lacks = r"keep_columns: expected \['i_mag', 'row'\] .* or --fresh, found \['g_mag'\]$"
    with pytest.raises(ResumeRefusedError, match=lacks):
        _opened(survey, ["g_mag"])


def test_an_older_run_holds_the_columns_that_it_said(tmp_path: Path) -> None:
    survey = make_survey(tmp_path, rows=40)
    _opened(survey, ["g_mag", "i_mag"])
    run = RunDirectory(str(tmp_path / "run"))
    before = run.read_json(RUN)
    assert before is not None
    del before["carried"]
    run.write_json(RUN, before)
    job, _ = _opened(survey, ["i_mag"])
    assert job.checked.select_plan.carried == ("g_mag", "i_mag", "row")
