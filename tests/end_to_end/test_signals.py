"""A run that is told to stop: its exit status, its last line, and that the next one ends it."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from lenspipe.config import load_survey
from lenspipe.events import Events
from lenspipe.job import run_survey
from lenspipe.metrics import RunMetrics
from lenspipe.progress import SilentProgress
from lenspipe.run_directory import RunDirectory
from lenspipe.verify import verify
from tests.toy_survey import make_survey

START_S = 120.0
ROWS = 2000


def _start(survey: Path) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "lenspipe", "run", str(survey)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def _wait_for_commit(process: subprocess.Popen[str], run: Path) -> None:
    began = time.monotonic()
    while not list((run / "shards").glob("score-*.json")):
        assert process.poll() is None, "the run ended before it could be stopped"
        assert time.monotonic() - began < START_S
        time.sleep(0.01)


@pytest.mark.parametrize(
    ("number", "status", "line"),
    [
        (signal.SIGTERM, 143, "terminated: the same command resumes"),
        pytest.param(
            signal.SIGINT, 130, "interrupted: the same command resumes", marks=pytest.mark.slow
        ),
    ],
)
@pytest.mark.usefixtures("ray_cluster")
def test_a_run_that_is_told_to_stop_ends_in_order_and_is_resumed(
    tmp_path: Path, number: signal.Signals, status: int, line: str
) -> None:
    runtime = {"shard_rows": 16, "provider": "cpu", "scorers": 1, "failure_limit": 1.0}
    survey = make_survey(tmp_path, rows=ROWS, runtime=runtime, publish={"explain": 0, "mosaic": 4})
    process = _start(survey)
    try:
        _wait_for_commit(process, tmp_path / "run")
        process.send_signal(number)
        out, err = process.communicate(timeout=60)
    finally:
        process.kill()
        process.wait()
    assert process.returncode == status, err
    assert out == ""
    *events, last = err.splitlines()
    assert last == line
    assert all("event" in json.loads(event) for event in events)
    assert not (tmp_path / "run" / "lock.json").exists()

    events_of_next = Events(RunMetrics("toy"), SilentProgress())
    funnel = run_survey(load_survey(survey), events_of_next).funnel
    directory = RunDirectory(str(tmp_path / "run"))
    assert verify(directory) == []
    assert (funnel.sources_in, funnel.accounted) == (ROWS, True)
    assert (funnel.scored, funnel.failed) == (_expected(survey), 0)


def _expected(survey: Path) -> int:
    """Rows that pass cut and network, from the catalogue alone."""
    table = pq.read_table(survey.parent / "catalogue").to_pandas()
    return int(((table["i_mag"] < 21.0) & (table["g_mag"] - table["i_mag"] > 1.0)).sum())
