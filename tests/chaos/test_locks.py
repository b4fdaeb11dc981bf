"""One run directory and two hosts, made of UTS and PID namespaces: it is known who may write."""

from __future__ import annotations

import fcntl
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from lenspipe.config import load_survey
from lenspipe.errors import RunLockedError
from lenspipe.job import run_survey
from lenspipe.metrics import RunMetrics
from lenspipe.run import lock
from lenspipe.run.lock import RunLock, read_holder
from lenspipe.run.verify import verify
from lenspipe.run_directory import LOCK, PART_FOLDERS, RunDirectory
from lenspipe.storage.store import Store
from lenspipe.telling.events import Events
from lenspipe.telling.progress import SilentProgress
from tests.toy_survey import make_survey

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(400)]

HOST = ("unshare", "--user", "--map-root-user", "--uts", "--pid", "--fork", "--kill-child")
# Takes the lock, and then says every tenth of a second whether it may still write.
HOLD = """
import sys, time
from lenspipe.run import lock
from lenspipe.errors import LenspipeError
from lenspipe.run_directory import RunDirectory
from lenspipe.storage.store import Store
lock.HEARTBEAT_S, lock.STALE_AFTER_S, lock.WATCH_S, lock._LOOK_S = 0.2, 1.0, 1.0, 0.05
run = RunDirectory(sys.argv[1])
mine = lock.RunLock(Store(sys.argv[1]))
try:
    mine.acquire(lambda line: print("told", line, flush=True))
    run.store.before_change = mine.check
    print("held", flush=True)
    while True:
        run.store.write("written", sys.argv[2].encode())
        time.sleep(0.1)
except LenspipeError as error:
    print(type(error).__name__, error, flush=True)
"""


@pytest.fixture(scope="module", autouse=True)
def _namespaces() -> None:
    done = subprocess.run(
        [*HOST, "--mount-proc", "hostname", "a"], capture_output=True, text=True, check=False
    )
    if done.returncode:
        pytest.skip(f"no UTS and PID namespaces here: {done.stderr.strip()}")


class Host:
    """A process that holds the run's lock on a host of its own."""

    def __init__(self, name: str, run: Path) -> None:
        self.process = subprocess.Popen(
            [
                *(*HOST, "--mount-proc", "sh", "-c", 'hostname "$0"; exec "$@"', name),
                *(sys.executable, "-c", HOLD, str(run), name),
            ],
            stdout=subprocess.PIPE,
            text=True,
        )

    def line(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def holder(self) -> psutil.Process:
        """The process itself, which is 1 on its own host."""
        [child] = psutil.Process(self.process.pid).children()
        return child

    def end(self) -> None:
        self.process.kill()  # and the holder with it
        self.process.communicate()


@contextmanager
def host(name: str, run: Path) -> Iterator[Host]:
    started = Host(name, run)
    try:
        yield started
    finally:
        started.end()


def test_a_second_host_is_refused_and_told_host_process_and_since_when(tmp_path: Path) -> None:
    with host("alpha", tmp_path) as first:
        assert first.line() == "held"
        with host("beta", tmp_path) as second:
            assert "process 1 on alpha, since 20" in second.line()
        with pytest.raises(RunLockedError, match="process 1 on alpha, since 20"):
            RunLock(Store(str(tmp_path))).acquire()
        assert first.process.poll() is None


@pytest.mark.parametrize("name", ["beta", "alpha"])
def test_the_lock_of_a_host_that_is_gone_is_taken_after_silence(tmp_path: Path, name: str) -> None:
    """By another host, and by the same one started again, whose process is 1 once more."""
    with host("alpha", tmp_path) as first:
        assert first.line() == "held"
    time.sleep(1.1)
    with host(name, tmp_path) as second:
        lines = [second.line(), second.line()]
        assert "the lock of process 1 on alpha, since" in lines[0] or lines[0] == "held"
        assert "held" in lines
        assert (read_holder(Store(str(tmp_path))) or {})["host"] == name


def test_a_paused_holder_writes_nothing_once_another_host_took_over(tmp_path: Path) -> None:
    with host("alpha", tmp_path) as first:
        assert first.line() == "held"
        wait((tmp_path / "written").exists)
        first.holder().send_signal(signal.SIGSTOP)
        time.sleep(1.5)
        with host("beta", tmp_path) as second:
            assert second.line().startswith("told the lock of process 1 on alpha")
            assert second.line() == "held"
            wait(lambda: (tmp_path / "written").read_text() == "beta")
            first.holder().send_signal(signal.SIGCONT)
            assert first.line().startswith("LockLostError run ")
            assert (tmp_path / "written").read_text() == "beta"
            assert (read_holder(Store(str(tmp_path))) or {})["host"] == "beta"


@pytest.mark.usefixtures("ray_cluster")
def test_a_paused_run_commits_nothing_once_another_took_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A laptop that sleeps, a host that hangs: the run of a whole job, stopped while it scores."""
    runtime = {"shard_rows": 8, "provider": "cpu", "scorers": 1, "failure_limit": 1.0}
    survey = make_survey(tmp_path, rows=3000, runtime=runtime, publish={"explain": 0, "mosaic": 4})
    run = tmp_path / "run"
    code = (
        "from lenspipe import cli; from lenspipe.run import lock; "
        "lock.HEARTBEAT_S = 0.2; cli.main()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, "run", str(survey)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    ) as driver:
        try:
            wait(lambda: any(RunDirectory(str(run)).commits("score")), 200.0)
            stop_away_from_the_lock(driver, run)
            mine = taken_over_from_afar(run, monkeypatch)
            before = committed(run)
            driver.send_signal(signal.SIGCONT)
            _, err = driver.communicate(timeout=100)
        finally:
            driver.kill()
    last = err.splitlines()[-1]
    assert driver.returncode == 1, last
    assert last.startswith("LockLostError: run ")
    assert "on beta, since" in last
    assert committed(run) == before
    mine.check()
    mine.release()

    funnel = run_survey(load_survey(survey), Events(RunMetrics("toy"), SilentProgress())).funnel
    assert funnel.accounted
    assert (funnel.sources_in, funnel.failed) == (3000, 0)
    assert verify(RunDirectory(str(run))) == []


def stop_away_from_the_lock(driver: subprocess.Popen[str], run: Path) -> None:
    """Stop a process at a moment at which it does not keep others of its host from the lock: for a
    process of another host there is no such moment."""
    descriptor = os.open(run, os.O_RDONLY)
    try:
        while True:
            driver.send_signal(signal.SIGSTOP)
            wait(lambda: psutil.Process(driver.pid).status() == psutil.STATUS_STOPPED)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return
            except BlockingIOError:
                driver.send_signal(signal.SIGCONT)
                time.sleep(0.05)
    finally:
        os.close(descriptor)


def taken_over_from_afar(run: Path, monkeypatch: pytest.MonkeyPatch) -> RunLock:
    """The lock, taken as a host takes it that cannot see the holder's processes."""
    with monkeypatch.context() as afar:
        afar.setattr(lock, "_process_table", lambda: {"host": "beta", "boot": "b"})
        afar.setattr(lock, "STALE_AFTER_S", 0.5)
        afar.setattr(lock, "WATCH_S", 1.0)
        time.sleep(0.6)
        mine = RunLock(Store(str(run)))
        mine.acquire()
    return mine


def committed(run: Path) -> dict[str, bytes]:
    """All that counts in a run directory: parts are names to be, the lock is not the run's."""
    skipped = {*PART_FOLDERS, LOCK}
    return {
        str(path.relative_to(run)): path.read_bytes()
        for path in sorted(run.rglob("*"))
        if path.is_file() and path.relative_to(run).parts[0] not in skipped
    }


def wait(until: Callable[[], bool], seconds: float = 30.0) -> None:
    deadline = time.monotonic() + seconds
    while not until():
        assert time.monotonic() < deadline
        time.sleep(0.02)
