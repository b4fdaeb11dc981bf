"""Pixels of the candidates: a read that never returns stops the run and hangs nobody."""

from __future__ import annotations

import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from lenspipe.check import check_survey
from lenspipe.config import load_survey
from lenspipe.errors import StoppedError
from lenspipe.models.memory import OutOfMemoryError
from lenspipe.stages import candidate_stamps
from lenspipe.stages.candidate_stamps import CandidateStamps
from tests.toy_survey import make_survey


class _Hung:
    """A reader whose storage does not answer before `release`."""

    def __init__(self) -> None:
        self.release = threading.Event()

    def read(self, *_: object) -> None:
        self.release.wait(60)


def test_a_read_that_never_returns_stops_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checked = check_survey(load_survey(make_survey(tmp_path, rows=40)))
    settings = checked.score_settings(str(tmp_path / "run"), "cpu", threads=1)
    reader = _Hung()
    rows = pa.table({"object_id": [1, 2, 3]})
    monkeypatch.setattr(candidate_stamps, "open_planned", lambda *_: reader)
    monkeypatch.setattr(candidate_stamps, "rows_of_ids", lambda *_: rows)
    stamps: Any = replace(CandidateStamps(None, settings, 0), timeout_s=0.5)  # type: ignore[arg-type]
    try:
        with pytest.raises(StoppedError, match=r"candidates' pixels.*0\.5 s.*shard_timeout_s"):
            list(stamps(rows))
    finally:
        reader.release.set()


def test_short_memory_stops_with_the_way_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checked = check_survey(load_survey(make_survey(tmp_path, rows=40)))
    settings = checked.score_settings(str(tmp_path / "run"), "cpu", threads=1)

    def short(*_: object) -> None:
        raise OutOfMemoryError("resnet-a: bad_alloc")

    monkeypatch.setattr(candidate_stamps, "open_planned", lambda *_: _Hung())
    monkeypatch.setattr(candidate_stamps, "rows_of_ids", lambda *_: pa.table({"object_id": [1]}))
    monkeypatch.setattr(candidate_stamps, "Embedding", short)
    stamps: Any = CandidateStamps(None, settings, 0)  # type: ignore[arg-type]
    with pytest.raises(StoppedError, match=r"resnet-a: bad_alloc; all scores are kept: the same"):
        list(stamps(pa.table({"object_id": [1]})))
