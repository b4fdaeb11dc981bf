"""A node whose memory is used up: Ray kills workers, and the run says so in one line."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.chaos.job_process import JobProcess
from tests.toy_survey import make_survey

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(600)]


def test_memory_that_stays_short_stops_the_run_and_costs_no_row(tmp_path: Path) -> None:
    survey = make_survey(tmp_path, rows=100)
    # More than this much of the memory is in use on any machine.
    short = {"RAY_memory_usage_threshold": "0.001", "RAY_memory_monitor_refresh_ms": "100"}
    impatient = "from lenspipe import runtime; runtime._MEMORY_REST_S = 0.5"
    with JobProcess(survey, before=impatient, **short) as job:
        assert job.wait() == 1
        last = job.lines()[-1]
    assert last.startswith("StoppedError: ")
    assert "the memory of the node ran out" in last
    assert "runtime.shard_rows" in last
    assert last.endswith("the same command resumes")
    assert not list((tmp_path / "run").glob("failures/*"))
