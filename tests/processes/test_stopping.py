"""Signals in a process of their own: what it says, how it ends, what it leaves."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Callable

import psutil
import pytest

_BEGIN = """
import signal, subprocess, sys, time
from lenspipe.processes import stopping
stopping._GRACE_S = {grace}
stopping.end_on_signals()
# It has no part in our pipes: one left behind must not keep a reader of them waiting.
child = subprocess.Popen(["sleep", "600"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
def ready():
    print(child.pid, flush=True)
"""
# A library that turns the handler's exception into one of its own, as Ray may.
_SWALLOWS = """
try:
    try:
        ready()
        time.sleep(600)
    except SystemExit:
        pass
    while True:
        stopping.check()
        time.sleep(0.05)
finally:
    child.kill()
"""
_NEVER_ENDS = """
try:
    ready()
    time.sleep(600)
finally:
    while True:
        try:
            time.sleep(600)
        except SystemExit:
            pass
"""


def run_script(
    body: str,
    send: Callable[[subprocess.Popen[str]], None],
    grace_s: float = 600.0,
    ignore_interrupts: bool = False,
) -> tuple[int, str, psutil.Process]:
    """(exit status, standard error, the child that the script had)."""
    before = signal.getsignal(signal.SIGINT)
    # Not as it happens to be here: a shell's background jobs ignore interrupts.
    signal.signal(signal.SIGINT, signal.SIG_IGN if ignore_interrupts else signal.SIG_DFL)
    try:
        process = subprocess.Popen(
            [sys.executable, "-c", _BEGIN.format(grace=grace_s) + body],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
    finally:
        signal.signal(signal.SIGINT, before)
    assert process.stdout is not None
    child = psutil.Process(int(process.stdout.readline()))
    try:
        send(process)
        _, err = process.communicate(timeout=60)
    finally:
        process.kill()
        process.wait()
        if child.is_running() and ignore_interrupts:
            child.kill()
    return process.returncode, err, child


def lives(process: psutil.Process) -> bool:
    deadline = time.monotonic() + 5.0
    while time.monotonic() < deadline:
        if not process.is_running() or process.status() == psutil.STATUS_ZOMBIE:
            return False
        time.sleep(0.02)
    return True


@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_that_a_library_swallowed_is_still_asked_for(
    number: signal.Signals, status: int
) -> None:
    found, err, child = run_script(_SWALLOWS, lambda process: process.send_signal(number))
    assert (found, err) == (status, "")
    assert not lives(child)


def test_the_second_signal_ends_at_once_and_leaves_no_process() -> None:
    def twice(process: subprocess.Popen[str]) -> None:
        process.send_signal(signal.SIGINT)
        time.sleep(0.3)
        assert process.poll() is None
        process.send_signal(signal.SIGINT)

    status, err, child = run_script(_NEVER_ENDS, twice)
    assert status == 130
    assert err == "interrupted before it could end in order: the same command begins anew\n"
    assert not lives(child)


def test_an_end_in_order_that_takes_too_long_is_cut_short() -> None:
    status, err, child = run_script(
        f"stopping.will_resume()\n{_NEVER_ENDS}",
        lambda process: process.send_signal(signal.SIGTERM),
        grace_s=0.3,
    )
    assert status == 143
    assert err == "terminated before it could end in order: the same command resumes\n"
    assert not lives(child)


def test_interrupts_that_the_parent_ignores_stay_ignored() -> None:
    """As for `nohup` and the background jobs of a shell without job control."""

    def both(process: subprocess.Popen[str]) -> None:
        process.send_signal(signal.SIGINT)
        time.sleep(0.3)
        assert process.poll() is None
        process.send_signal(signal.SIGTERM)

    status, _, _ = run_script(_SWALLOWS, both, ignore_interrupts=True)
    assert status == 143
