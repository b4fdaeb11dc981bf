"""A run that is told to stop: its exit status, its last line, and that the next one ends it."""

from __future__ import annotations

import json
import signal
import time
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from lenspipe.config import load_survey
from lenspipe.job import run_survey
from lenspipe.metrics import RunMetrics
from lenspipe.run.verify import verify
from lenspipe.run_directory import RunDirectory
from lenspipe.telling.events import Events
from lenspipe.telling.progress import SilentProgress
from tests.chaos.job_process import PATIENCE_S, JobProcess
from tests.toy_survey import make_survey

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(600)]
ROWS = 2000
# A cluster that evicts waits 30 s; on a quiet machine the end takes about 2 s.
IN_ORDER_S = 30.0
AT_ONCE_S = 10.0


def _make(folder: Path) -> Path:
    runtime = {"shard_rows": 16, "provider": "cpu", "scorers": 1, "failure_limit": 1.0}
    return make_survey(folder, rows=ROWS, runtime=runtime, publish={"explain": 0, "mosaic": 4})


def _wait_for_stage(job: JobProcess, stage: str) -> None:
    began = time.monotonic()
    while job.stage() != stage:
        assert not job.ended, f"the run ended before it could be stopped: {job.lines()}"
        assert time.monotonic() - began < PATIENCE_S
        time.sleep(0.01)


@pytest.mark.parametrize(
    ("number", "status", "line"),
    [
        (signal.SIGTERM, 143, "terminated: the same command resumes"),
        (signal.SIGINT, 130, "interrupted: the same command resumes"),
        (signal.SIGHUP, 129, "hung up: the same command resumes"),
    ],
)
@pytest.mark.usefixtures("ray_cluster")
def test_a_run_that_is_told_to_stop_ends_in_order_and_is_resumed(
    tmp_path: Path, number: signal.Signals, status: int, line: str
) -> None:
    survey = _make(tmp_path)
    with JobProcess(survey) as job:
        _wait_for_stage(job, "score")
        job.living()
        job.process.send_signal(number)
        assert job.wait(IN_ORDER_S) == status, job.lines()
        assert job.wait_until_gone(AT_ONCE_S) == []
        assert list(job.temporary.iterdir()) == []
        *events, last = job.lines()
        assert last == line
        assert all("event" in json.loads(event) for event in events)
        assert job.output() == ""
    assert not (tmp_path / "run" / "lock.json").exists()
    assert not list((tmp_path / "run").rglob(".tmp-*"))

    events_of_next = Events(RunMetrics("toy"), SilentProgress())
    funnel = run_survey(load_survey(survey), events_of_next).funnel
    directory = RunDirectory(str(tmp_path / "run"))
    assert verify(directory) == []
    assert (funnel.sources_in, funnel.accounted) == (ROWS, True)
    assert (funnel.scored, funnel.failed) == (_expected(survey), 0)


def test_the_second_interrupt_ends_at_once_and_leaves_no_process(tmp_path: Path) -> None:
    with JobProcess(_make(tmp_path)) as job:
        _wait_for_stage(job, "score")
        job.living()
        job.process.send_signal(signal.SIGINT)
        time.sleep(0.05)
        job.process.send_signal(signal.SIGINT)
        assert job.wait(AT_ONCE_S) == 130, job.lines()
        assert job.wait_until_gone(AT_ONCE_S) == []
        assert job.lines()[-1].endswith("the same command resumes")
        assert not any("Traceback" in line for line in job.lines())


def _expected(survey: Path) -> int:
    """Rows that pass cut and network, from the catalogue alone."""
    table = pq.read_table(survey.parent / "catalogue").to_pandas()
    return int(((table["i_mag"] < 21.0) & (table["g_mag"] - table["i_mag"] > 1.0)).sum())
