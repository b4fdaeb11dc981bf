"""One run directory, one writer: a lock that tells a live run from a dead one."""

from __future__ import annotations

import fcntl
import json
import os
import socket
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import psutil

from lenspipe.errors import LenspipeError, RunLockedError
from lenspipe.run_directory import LOCK
from lenspipe.storage import Store, is_storage_fault

HEARTBEAT_S = 15.0
# A holder on another host counts as dead when its heartbeat is older than this.
STALE_AFTER_S = 120.0


class LockLostError(LenspipeError):
    """Another process took this run over; nothing more may be committed."""


class RunLock:
    """Held while a run writes; `check` raises LockLostError once another process took over."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._token = uuid.uuid4().hex
        self._process = _this_process()
        self._seen = _clocks()
        self._stop = threading.Event()
        self._lost = threading.Event()
        self._thread = threading.Thread(target=self._beat, name="run-lock", daemon=True)

    def acquire(self) -> None:
        """Take the lock; RunLockedError names the holder where it lives."""
        with _guard(self._store):
            holder = read_holder(self._store)
            if holder is not None:
                if is_alive(holder):
                    raise RunLockedError(
                        f"run {self._store.url}",
                        "no other run writing there",
                        f"process {holder.get('pid')} on {holder.get('host')}",
                    )
                self._store.delete(LOCK)
            if not self._store.create(LOCK, self._content()):
                raise RunLockedError(
                    f"run {self._store.url}", "no other run writing there", "one that just began"
                )
        self._seen = _clocks()
        self._thread.start()

    def release(self) -> None:
        """Give the lock back if it is still ours."""
        self._stop.set()
        self._thread.join()
        with _guard(self._store):
            if self._is_ours():
                self._store.delete(LOCK)

    def check(self) -> None:
        """Raise LockLostError if another process holds the lock now.

        Where no heartbeat went well of late (the host slept, the storage fails) the lock is read
        again; what that raises is raised here.
        """
        if not self._lost.is_set() and _age(self._seen) > 2 * HEARTBEAT_S:
            try:
                self._renew()
            except Exception as error:  # a disk that is full can still be read
                if not is_storage_fault(error):
                    raise
                if not self._is_ours():
                    self._lost.set()
        if self._lost.is_set():
            raise LockLostError(f"run {self._store.url}: another process took this run over")

    def _beat(self) -> None:
        while not self._stop.wait(HEARTBEAT_S) and not self._lost.is_set():
            # Whatever it is, the next beat tries again; if it stays, `check` meets it too and
            # raises it where the run sees it.
            with suppress(Exception):
                self._renew()

    def _renew(self) -> None:
        """A heartbeat into the lock. One that is gone was taken over and given back since."""
        with _guard(self._store):
            at = _clocks()
            if not self._is_ours():
                self._lost.set()
                return
            self._store.write(LOCK, self._content())
            self._seen = at

    def _is_ours(self) -> bool:
        holder = read_holder(self._store)
        return holder is not None and holder.get("token") == self._token

    def _content(self) -> bytes:
        content = {"token": self._token, **self._process, "heartbeat": time.time()}
        return json.dumps(content).encode()


def read_holder(store: Store) -> dict[str, Any] | None:
    """Who holds the lock; None where nobody does. A lock that is not JSON names a dead holder."""
    try:
        content = json.loads(store.read(LOCK))
    except FileNotFoundError:
        return None
    except ValueError:
        return {}
    return content if isinstance(content, dict) else {}


def is_alive(holder: dict[str, Any]) -> bool:
    """Whether the process that wrote the lock still runs.

    Where the holder's process ids are ours (same host, boot and PID namespace: containers may share
    the first two) the process table says it, process start included, since ids are used again;
    elsewhere the age of the heartbeat does.
    """
    try:
        if all(holder.get(key) == value for key, value in _process_table().items()):
            return _runs(holder)
        return time.time() - float(holder.get("heartbeat", 0.0)) < STALE_AFTER_S
    except (KeyError, TypeError, ValueError):  # not a lock that we wrote
        return False


def _runs(holder: dict[str, Any]) -> bool:
    try:
        process = psutil.Process(int(holder["pid"]))
        if process.status() == psutil.STATUS_ZOMBIE:
            return False
        ticks = _start_ticks(process.pid)
        if ticks is not None and holder.get("start_ticks") is not None:
            return ticks == int(holder["start_ticks"])
        return abs(process.create_time() - float(holder["process_started"])) < 1.0
    except psutil.NoSuchProcess:
        return False


def _this_process() -> dict[str, Any]:
    me = psutil.Process()
    return {
        **_process_table(),
        "pid": me.pid,
        "start_ticks": _start_ticks(me.pid),
        "process_started": me.create_time(),
    }


def _process_table() -> dict[str, str]:
    """What names the table that a process id belongs to; empty where the system does not tell."""
    return {
        "host": socket.gethostname(),
        "boot": _boot_id(),
        "pid_namespace": _pid_namespace(),
    }


def _boot_id() -> str:
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except OSError:
        return ""


def _pid_namespace() -> str:
    try:
        return str(Path("/proc/self/ns/pid").readlink())
    except OSError:
        return ""


def _start_ticks(pid: int) -> int | None:
    """Start of a process in clock ticks since boot, field 22 of proc_pid_stat(5); None elsewhere.

    Unlike the time of day that is computed from it, it stays when the clock is set.
    """
    try:
        stat = Path(f"/proc/{pid}/stat").read_bytes()
    except OSError:
        return None
    return int(stat.rpartition(b")")[2].split()[19])  # the name before `)` may hold blanks


def _clocks() -> tuple[float, float]:
    """Seconds of the time of day, and of a clock that nobody sets."""
    boot = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)  # goes on while the host sleeps
    return time.time(), time.clock_gettime(boot)


def _age(since: tuple[float, float]) -> float:
    """Seconds that passed, by the clock that saw more: a paused machine may stop one of them."""
    return max(now - then for now, then in zip(_clocks(), since, strict=True))


@contextmanager
def _guard(store: Store) -> Iterator[None]:
    """Only one process of this host at a time looks at the lock and takes it."""
    if not store.is_local:
        yield
        return
    store.local_path("").mkdir(parents=True, exist_ok=True)
    descriptor = os.open(store.local_path(""), os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
