from __future__ import annotations

import errno
import fcntl
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lenspipe.errors import RunLockedError
from lenspipe.run import lock
from lenspipe.run.lock import LockLostError, RunLock, is_alive, read_holder
from lenspipe.run_directory import LOCK
from lenspipe.storage.store import Store

HOLD = """
import sys, time
from lenspipe.run.lock import RunLock
from lenspipe.storage.store import Store
RunLock(Store(sys.argv[1])).acquire()
print("held", flush=True)
time.sleep(60)
"""


def held(folder: Path) -> dict[str, Any]:
    """What a lock of this process says."""
    mine = RunLock(Store(str(folder)))
    mine.acquire()
    holder = read_holder(Store(str(folder)))
    mine.release()
    assert holder is not None
    return holder


def sleep_through(monkeypatch: pytest.MonkeyPatch, seconds: float) -> None:
    """The host sleeps: only the clock that goes on meanwhile shows it."""
    before = lock._clocks
    monkeypatch.setattr(lock, "_clocks", lambda: (before()[0], before()[1] + seconds))


def test_a_second_writer_is_refused_and_told_who_writes(tmp_path: Path) -> None:
    first = RunLock(Store(str(tmp_path)))
    first.acquire()
    with pytest.raises(RunLockedError, match=r"found process \d+ on .+, since \d{4}-\d\d-\d\dT"):
        RunLock(Store(str(tmp_path))).acquire()
    first.release()
    second = RunLock(Store(str(tmp_path)))
    second.acquire()
    second.release()
    assert read_holder(Store(str(tmp_path))) is None


def test_a_second_writer_may_wait_for_the_end_of_the_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lock, "_PATIENT_LOOK_S", 0.05)
    first, second = RunLock(Store(str(tmp_path))), RunLock(Store(str(tmp_path)))
    first.acquire()
    told: list[str] = []
    threading.Timer(0.3, first.release).start()
    second.acquire(told.append, wait_s=60.0)
    assert len(told) == 1
    assert told[0].endswith("its end is waited for, at most 60 s")
    with pytest.raises(RunLockedError):
        RunLock(Store(str(tmp_path))).acquire(wait_s=0.2)
    second.release()


def test_who_waits_outlasts_a_holder_whose_host_is_gone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As the second try of a job on Kubernetes does, whose first lost its node a moment ago."""
    for name, seconds in [("_PATIENT_LOOK_S", 0.1), ("STALE_AFTER_S", 1.0), ("WATCH_S", 0.3)]:
        monkeypatch.setattr(lock, name, seconds)
    gone = {"token": "gone", "host": "elsewhere", "pid": 1, "heartbeat": time.time()}
    Store(str(tmp_path)).write(LOCK, json.dumps(gone).encode())
    with pytest.raises(RunLockedError):
        RunLock(Store(str(tmp_path))).acquire()
    mine = RunLock(Store(str(tmp_path)))
    mine.acquire(wait_s=60.0)
    mine.release()


def test_the_lock_of_a_killed_process_is_taken_over(tmp_path: Path) -> None:
    store = Store(str(tmp_path))
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path)], stdout=subprocess.PIPE, text=True
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(RunLockedError, match=f"process {holder.pid}"):
            RunLock(store).acquire()
        holder.kill()
    mine = RunLock(store)
    mine.acquire()
    mine.release()


def test_a_process_id_that_is_used_again_is_not_the_holder(tmp_path: Path) -> None:
    holder = held(tmp_path)
    assert is_alive(holder)
    assert not is_alive({**holder, "start_ticks": holder["start_ticks"] - 1})


def test_a_clock_that_was_set_does_not_make_the_holder_another_process(tmp_path: Path) -> None:
    holder = held(tmp_path)
    assert is_alive({**holder, "process_started": holder["process_started"] - 100.0})


def test_where_ticks_are_not_known_the_time_of_day_of_the_start_decides(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lock, "_start_ticks", lambda _pid: None)
    holder = held(tmp_path)
    assert holder["start_ticks"] is None
    assert is_alive(holder)
    assert not is_alive({**holder, "process_started": holder["process_started"] - 100.0})


def test_start_ticks_are_read_past_a_name_with_blanks_and_brackets(tmp_path: Path) -> None:
    name = tmp_path / "a) b (c"
    name.symlink_to("/bin/sleep")
    with subprocess.Popen([name, "60"]) as process:
        ticks = lock._start_ticks(process.pid)
        process.kill()
    mine = lock._start_ticks(os.getpid())
    assert ticks is not None
    assert mine is not None
    assert mine <= ticks < mine + 3600 * os.sysconf("SC_CLK_TCK")


@pytest.mark.parametrize("key", ["host", "boot", "pid_namespace"])
def test_process_ids_of_another_container_are_not_looked_up_here(tmp_path: Path, key: str) -> None:
    """Here the process id belongs to a stranger, or to nobody: only the heartbeat can tell."""
    nobody = 1 << 30
    there = {**held(tmp_path), key: "another", "pid": nobody}
    assert is_alive(there)
    assert not is_alive({**there, "heartbeat": time.time() - lock.STALE_AFTER_S - 1.0})
    assert not is_alive({**there, "pid": os.getpid(), "heartbeat": 0.0})


def test_a_run_of_a_second_container_with_the_same_name_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = RunLock(Store(str(tmp_path)))
    first.acquire()
    with monkeypatch.context() as other:
        other.setattr(lock, "_pid_namespace", lambda: "pid:[1]")
        other.setattr(lock, "_start_ticks", lambda _pid: 1)
        with pytest.raises(RunLockedError):
            RunLock(Store(str(tmp_path))).acquire()
    first.release()


@pytest.mark.parametrize(
    "wrong", [{"pid": None}, {"pid": "x"}, {"start_ticks": "x"}, {"pid": -1}, {"pid": [1]}]
)
def test_a_lock_that_makes_no_sense_names_a_dead_holder(
    tmp_path: Path, wrong: dict[str, object]
) -> None:
    assert not is_alive({**held(tmp_path), **wrong})
    assert not is_alive({"heartbeat": None})


def test_a_driver_that_is_a_clusters_job_says_which(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "job" not in held(tmp_path)
    config = {"runtime_env": {}, "metadata": {"job_submission_id": "lenspipe-toy-1a2b3c4d-2"}}
    monkeypatch.setenv("RAY_JOB_CONFIG_JSON_ENV_VAR", json.dumps(config))
    mine = RunLock(Store(str(tmp_path)))
    mine.acquire()
    with pytest.raises(RunLockedError, match="job lenspipe-toy-1a2b3c4d-2, since "):
        RunLock(Store(str(tmp_path))).acquire()
    mine.release()


@pytest.mark.parametrize(
    "config",
    ["", "[", "{}", "null", '{"metadata": null}', '{"metadata": {"job_submission_id": 1}}'],
)
def test_a_driver_of_anything_else_is_no_job(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, config: str
) -> None:
    monkeypatch.setenv("RAY_JOB_CONFIG_JSON_ENV_VAR", config)
    assert "job" not in held(tmp_path)


def test_a_holder_on_another_host_lives_while_its_heart_beats() -> None:
    holder = {"host": "elsewhere", "boot": "other", "pid": 1, "heartbeat": time.time()}
    assert is_alive(holder)
    assert not is_alive({**holder, "heartbeat": time.time() - lock.STALE_AFTER_S - 1.0})
    assert not is_alive({})


def test_who_lost_the_lock_may_not_commit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lock, "HEARTBEAT_S", 0.02)
    store = Store(str(tmp_path))
    mine = RunLock(store)
    mine.acquire()
    mine.check()
    store.write(LOCK, json.dumps({"token": "other", "host": "elsewhere"}).encode())
    deadline = time.monotonic() + 10.0
    with pytest.raises(LockLostError):
        while time.monotonic() < deadline:
            mine.check()
            time.sleep(0.02)
    mine.release()
    assert read_holder(store) == {"token": "other", "host": "elsewhere"}


def test_who_slept_past_a_takeover_is_told_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Store(str(tmp_path))
    mine = RunLock(store)
    mine.acquire()
    store.write(LOCK, json.dumps({"token": "other", "host": "elsewhere"}).encode())
    mine.check()  # the heartbeat, 15 s apart, has not met it yet
    sleep_through(monkeypatch, 2 * lock.HEARTBEAT_S + 1.0)
    with pytest.raises(LockLostError):
        mine.check()
    mine.release()
    assert read_holder(store) == {"token": "other", "host": "elsewhere"}


def test_a_takeover_that_was_given_back_is_a_loss_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Store(str(tmp_path))
    mine = RunLock(store)
    mine.acquire()
    store.delete(LOCK)
    sleep_through(monkeypatch, 2 * lock.HEARTBEAT_S + 1.0)
    with pytest.raises(LockLostError):
        mine.check()
    mine.release()
    assert read_holder(store) is None


def test_who_slept_and_still_holds_the_lock_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Store(str(tmp_path))
    mine = RunLock(store)
    mine.acquire()
    before = read_holder(store)
    sleep_through(monkeypatch, 2 * lock.HEARTBEAT_S + 1.0)
    mine.check()
    after = read_holder(store)
    mine.release()
    assert before is not None
    assert after is not None
    assert after["token"] == before["token"]
    assert after["heartbeat"] > before["heartbeat"]


def test_a_full_disk_does_not_lose_the_lock_and_an_unreadable_one_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    store = Store(str(tmp_path))
    mine = RunLock(store)
    mine.acquire()
    sleep_through(monkeypatch, 2 * lock.HEARTBEAT_S + 1.0)
    with monkeypatch.context() as disk:
        disk.setattr(store, "write", full)
        mine.check()
        disk.setattr(store, "read", full)
        with pytest.raises(OSError, match="No space"):
            mine.check()
    mine.release()
    assert read_holder(store) is None


def test_no_error_ends_the_heartbeat(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lock, "HEARTBEAT_S", 0.02)
    store = Store(str(tmp_path))
    mine = RunLock(store)
    failures = []

    def fails(_name: str, _data: bytes) -> None:
        failures.append(1)
        raise RuntimeError("a storage library's own error")

    mine.acquire()
    before = read_holder(store)
    assert before is not None
    with monkeypatch.context() as storage:
        storage.setattr(store, "write", fails)
        wait(lambda: len(failures) > 2)
        with pytest.raises(RuntimeError, match="library's own"):
            mine.check()
    wait(lambda: (read_holder(store) or before)["heartbeat"] > before["heartbeat"])
    mine.check()
    mine.release()


def elsewhere(tmp_path: Path, **changes: Any) -> dict[str, Any]:
    """The lock of a run on another host, by default one that is silent for long."""
    silent = {"heartbeat": time.time() - lock.STALE_AFTER_S - 1.0}
    return {**held(tmp_path), "host": "elsewhere", "token": "theirs", **silent, **changes}


def put(folder: Path, holder: dict[str, Any]) -> bytes:
    content = json.dumps(holder).encode()
    Store(str(folder)).write(LOCK, content)
    return content


@pytest.fixture
def short_watch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lock, "WATCH_S", 0.3)
    monkeypatch.setattr(lock, "_LOOK_S", 0.02)


@pytest.mark.usefixtures("short_watch")
@pytest.mark.parametrize("ahead_s", [-1e4, 1e9])
def test_a_silent_holder_elsewhere_is_watched_and_then_taken_over(
    tmp_path: Path, ahead_s: float
) -> None:
    """Whatever its clock said: of a host whose clock is years ahead too."""
    put(tmp_path, elsewhere(tmp_path, heartbeat=time.time() + ahead_s))
    told: list[str] = []
    mine = RunLock(Store(str(tmp_path)))
    began = time.monotonic()
    mine.acquire(told.append)
    assert time.monotonic() - began >= 0.3
    assert len(told) == 1
    assert "on elsewhere, since" in told[0]
    mine.check()
    mine.release()


@pytest.mark.usefixtures("short_watch")
@pytest.mark.parametrize("ahead_s", [-1e4, 1e9])
def test_a_holder_whose_clock_is_wrong_and_whose_heart_beats_is_left_alone(
    tmp_path: Path, ahead_s: float
) -> None:
    holder = elsewhere(tmp_path, heartbeat=time.time() + ahead_s)
    put(tmp_path, holder)
    assert not is_alive(holder)  # by the clock alone
    beat = threading.Timer(0.1, put, (tmp_path, {**holder, "heartbeat": holder["heartbeat"] + 15}))
    beat.start()
    with pytest.raises(RunLockedError, match="on elsewhere"):
        RunLock(Store(str(tmp_path))).acquire()
    beat.join()
    assert (read_holder(Store(str(tmp_path))) or {})["host"] == "elsewhere"


@pytest.mark.parametrize("jump_s", [-1e8, 1e8])
def test_a_clock_that_is_set_does_not_lose_the_lock(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, jump_s: float
) -> None:
    mine = RunLock(Store(str(tmp_path)))
    mine.acquire()
    now = time.time
    monkeypatch.setattr(time, "time", lambda: now() + jump_s)
    mine.check()
    with pytest.raises(RunLockedError):  # here the process table tells, and no clock
        RunLock(Store(str(tmp_path))).acquire()
    mine.release()


def test_where_files_cannot_be_flocked_one_of_many_gets_a_dead_lock(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on NFS without a lock daemon: then the lock file alone keeps runs apart."""

    def refuse(*_: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    dead = {**held(tmp_path), "start_ticks": 1, "token": "dead"}
    monkeypatch.setattr(fcntl, "flock", refuse)
    for _ in range(5):
        put(tmp_path, dead)
        gate = threading.Barrier(6)
        got: list[RunLock] = []

        def contend(gate: threading.Barrier = gate, got: list[RunLock] = got) -> None:
            mine = RunLock(Store(str(tmp_path)))
            gate.wait()
            try:
                mine.acquire()
            except RunLockedError:
                return
            got.append(mine)

        threads = [threading.Thread(target=contend) for _ in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(got) == 1
        got[0].check()
        got[0].release()
    assert list(tmp_path.iterdir()) == []


def test_another_fault_of_flock_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(fcntl, "flock", refuse)
    with pytest.raises(OSError, match="Input/output"):
        RunLock(Store(str(tmp_path))).acquire()


def test_a_lock_that_changed_hands_meanwhile_is_put_back(tmp_path: Path) -> None:
    theirs = put(tmp_path, elsewhere(tmp_path))
    assert not lock._remove(Store(str(tmp_path)), b"what was judged dead")
    assert Store(str(tmp_path)).read(LOCK) == theirs
    assert lock._remove(Store(str(tmp_path)), theirs)
    assert not lock._remove(Store(str(tmp_path)), theirs)


def test_storage_that_refuses_does_not_hide_why_a_run_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def read_only(_name: str) -> None:
        raise OSError(errno.EROFS, "Read-only file system")

    store = Store(str(tmp_path))
    mine = RunLock(store)
    mine.acquire()
    monkeypatch.setattr(store, "delete", read_only)
    mine.release()
    assert read_holder(store) is not None


def test_who_lost_the_lock_is_told_to_whom(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    theirs = elsewhere(tmp_path, pid=77)
    mine = RunLock(Store(str(tmp_path)))
    mine.acquire()
    put(tmp_path, theirs)
    sleep_through(monkeypatch, 2 * lock.HEARTBEAT_S + 1.0)
    with pytest.raises(LockLostError, match=r"process 77 on elsewhere, since .* took this run"):
        mine.check()
    mine.release()


def wait(until: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 10.0
    while not until():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_a_process_that_hangs_at_the_lock_is_not_waited_for_for_ever(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lock, "GUARD_S", 0.3)
    descriptor = os.open(tmp_path, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        with pytest.raises(RunLockedError, match=r"found a process of this host that has been at"):
            RunLock(Store(str(tmp_path))).acquire()
    finally:
        os.close(descriptor)


def test_what_keeps_a_process_from_its_lock_does_not_keep_it_from_ending(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lock, "GUARD_S", 0.3)
    mine = RunLock(Store(str(tmp_path)))
    mine.acquire()
    descriptor = os.open(tmp_path, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        mine.release()
    finally:
        os.close(descriptor)
    assert (tmp_path / LOCK).exists()


def test_heartbeats_of_two_threads_are_no_strangers_to_each_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Store(f"memory://{tmp_path.name}/beats")
    mine = RunLock(store)
    mine.acquire()
    swap, rests = store.swap, iter((0.0, 0.1, 0.2))

    def later(name: str, data: bytes, tag: str) -> bool:
        time.sleep(next(rests))
        return swap(name, data, tag)

    monkeypatch.setattr(store, "swap", later)
    threads = [threading.Thread(target=mine._renew) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    mine.check()
    mine.release()
