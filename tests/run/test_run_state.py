"""What the metrics tell of a run that goes on, has ended, or never began."""

from __future__ import annotations

import re
import signal
import sys
import tempfile
from contextlib import nullcontext
from pathlib import Path

import pytest

from lenspipe import cli, job
from lenspipe.config import Survey, load_survey
from lenspipe.errors import (
    FailureLimitError,
    NoDeviceError,
    RunLockedError,
    StoppedError,
)
from lenspipe.metrics import RunMetrics
from lenspipe.run.opening import check_and_open
from lenspipe.run_directory import RunDirectory
from lenspipe.telling.events import Events
from lenspipe.telling.progress import SilentProgress
from tests.toy_survey import make_survey


@pytest.mark.parametrize(
    ("error", "state"),
    [
        (None, "done"),
        (StoppedError("storage is away"), "failed"),
        (FailureLimitError("too many"), "failed"),
        (NoDeviceError("runtime.provider", "cpu", "cuda"), "failed"),
        (RuntimeError("a fault"), "failed"),
        (SystemExit(143), "stopped"),
        (KeyboardInterrupt(), "stopped"),
    ],
    ids=lambda value: value if isinstance(value, str) else type(value).__name__,
)
def test_the_end_of_a_run_is_told_with_its_state(
    tmp_path: Path, error: BaseException | None, state: str
) -> None:
    survey = load_survey(make_survey(tmp_path, rows=20))
    expected = pytest.raises(type(error)) if error else nullcontext()
    metrics = RunMetrics("toy")
    with expected, check_and_open(survey, Events(metrics, SilentProgress())) as opened:
        assert states(metrics.text(), opened.run) == {"running"}
        if error:
            raise error
    left = (tmp_path / "run" / "metrics.prom").read_bytes()
    assert states(left, RunDirectory(str(tmp_path / "run"))) == {"running", state}


def states(text: bytes, run: RunDirectory) -> set[str]:
    """States of the run toy that was created when its `run.json` says."""
    created = re.escape((run.read_json("run.json") or {})["created"])
    name = rf'lenspipe_run_state_timestamp_seconds{{created="{created}",run="toy",state="(\w+)"}} '
    return set(re.findall(name, text.decode()))


def test_a_resume_keeps_when_the_run_was_created(tmp_path: Path) -> None:
    survey = load_survey(make_survey(tmp_path, rows=20))
    with check_and_open(survey, Events(RunMetrics("toy"), SilentProgress())) as opened:
        before = opened.run.read_json("run.json") or {}
        opened.run.write_json("run.json", {**before, "created": "then"})
    metrics = RunMetrics("toy")
    with check_and_open(survey, Events(metrics, SilentProgress())):
        pass
    assert b'lenspipe_run_info{created="then",run="toy"} 1.0' in metrics.text()


def test_a_run_that_is_refused_has_no_state(tmp_path: Path) -> None:
    survey = load_survey(make_survey(tmp_path, rows=20))
    metrics = RunMetrics("toy")
    with (
        check_and_open(survey, Events(RunMetrics("toy"), SilentProgress())),
        pytest.raises(RunLockedError),
        check_and_open(survey, Events(metrics, SilentProgress())),
    ):
        pass
    assert b"lenspipe_run_state_timestamp_seconds{" not in metrics.text()


def test_a_fault_waits_for_its_last_scrape_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(survey: Survey, events: Events, *_: object) -> None:
        with check_and_open(survey, events):
            raise RuntimeError("a fault")

    runtime = {"metrics_port": 0, "metrics_linger_s": 0.1}
    survey = make_survey(tmp_path, rows=20, runtime=runtime)
    monkeypatch.setattr(job, "run_survey", fail)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))  # the traceback's
    monkeypatch.setattr(signal, "signal", lambda *_: None)
    monkeypatch.setattr(sys, "argv", ["lenspipe", "run", str(survey)])
    monkeypatch.setattr("lenspipe.metrics.RunMetrics.linger", told := _Lingering())
    with pytest.raises(SystemExit, match="1"):
        cli.main()
    assert told.seconds == [0.1]
    assert "fault: RuntimeError: a fault" in capsys.readouterr().err


class _Lingering:
    def __init__(self) -> None:
        self.seconds: list[float] = []

    def __call__(self, seconds: float, *_: object) -> None:
        self.seconds.append(seconds)
