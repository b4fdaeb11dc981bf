from __future__ import annotations

import subprocess
import sys
import threading
import time

import pytest

from lenspipe.errors import StoppedError
from lenspipe.processes import time_limit
from lenspipe.processes.time_limit import TimeLimit, is_hung, within


class Clock:
    """A clock that a test sets."""

    def __init__(self) -> None:
        self.at = 100.0

    def __call__(self) -> float:
        return self.at


def test_what_the_user_says_stands() -> None:
    limit = TimeLimit(7.0)
    limit.ended_well(1000.0)
    assert limit.limit_s == 7.0


def test_without_a_word_the_slowest_that_ended_well_is_the_measure() -> None:
    limit = TimeLimit()
    assert limit.limit_s == time_limit.FIRST_S
    limit.ended_well(2.0)
    assert limit.limit_s == time_limit.LEAST_S
    limit.ended_well(80.0)
    limit.ended_well(3.0)
    assert limit.limit_s == pytest.approx(80.0 * time_limit.TIMES_SLOWEST)


def test_time_in_which_nobody_watched_does_not_count() -> None:
    clock = Clock()
    limit = TimeLimit(10.0, clock)
    clock.at += 3.0
    assert limit.now() == pytest.approx(3.0)
    clock.at += 3600.0  # the driver was stopped, or waited for its storage
    assert limit.now() < 10.0


def test_pieces_that_are_late_in_a_row_are_counted_once_each_and_forgotten_by_a_success() -> None:
    limit = TimeLimit(7.0)
    for _ in range(3):
        for piece in range(time_limit.HUNG_IN_A_ROW - 1):
            limit.timed_out(piece)
            limit.timed_out(piece)
        limit.ended_well(1.0)
    for piece in range(time_limit.HUNG_IN_A_ROW - 1):
        limit.timed_out(piece)
    with pytest.raises(StoppedError, match=r"8 shards .* \(now 7 s\).*the same command resumes"):
        limit.timed_out("another")


def test_a_call_within_its_time_gives_its_result_or_its_error() -> None:
    limit = TimeLimit(30.0)
    assert within(limit, "reading", lambda: 7) == 7

    def refuse() -> None:
        raise OSError(5, "Input/output error")

    with pytest.raises(OSError, match="Input/output error"):
        within(limit, "reading", refuse)
    assert not is_hung()


def test_a_call_that_never_returns_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time_limit, "_LOOK_S", 0.05)
    release = threading.Event()
    with pytest.raises(StoppedError, match=r"^reading took longer .*0\.2 s.*command resumes$"):
        within(TimeLimit(0.2), "reading", lambda: release.wait(60))
    assert is_hung()
    release.set()
    ended = time.monotonic() + 10
    while is_hung() and time.monotonic() < ended:
        time.sleep(0.01)
    assert not is_hung()


def test_a_process_ends_beside_threads_that_hang() -> None:
    """Python itself would wait for the threads of a pool, which readers have."""
    code = """
import threading, time
from concurrent.futures import ThreadPoolExecutor
from lenspipe import cli
from lenspipe.processes import time_limit

time_limit._LOOK_S = 0.05

def hang():
    with ThreadPoolExecutor(1) as pool:
        pool.submit(time.sleep, 100).result()

def app(**_):
    time_limit.within(time_limit.TimeLimit(0.2), "reading", hang)

cli.app = app
cli.main()
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 1
    assert done.stderr.startswith("StoppedError: reading took longer")
    assert done.stderr.count("\n") == 1
