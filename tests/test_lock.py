from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest

from lenspipe import lock
from lenspipe.errors import RunLockedError
from lenspipe.lock import LockLostError, RunLock, is_alive, read_holder
from lenspipe.run_directory import LOCK
from lenspipe.storage import Store

HOLD = """
import sys, time
from lenspipe.lock import RunLock
from lenspipe.storage import Store
RunLock(Store(sys.argv[1])).acquire()
print("held", flush=True)
time.sleep(60)
"""


def test_a_second_writer_is_refused_and_told_who_writes(tmp_path: Path) -> None:
    first = RunLock(Store(str(tmp_path)))
    first.acquire()
    with pytest.raises(RunLockedError, match="found process"):
        RunLock(Store(str(tmp_path))).acquire()
    first.release()
    second = RunLock(Store(str(tmp_path)))
    second.acquire()
    second.release()
    assert read_holder(Store(str(tmp_path))) is None


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
    mine = RunLock(Store(str(tmp_path)))
    mine.acquire()
    holder = read_holder(Store(str(tmp_path)))
    mine.release()
    assert holder is not None
    assert is_alive(holder)
    assert not is_alive({**holder, "process_started": holder["process_started"] - 100.0})


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
