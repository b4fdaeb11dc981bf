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
from contextlib import contextmanager
from typing import Any

import psutil

from lenspipe.errors import LenspipeError, RunLockedError
from lenspipe.run_directory import LOCK
from lenspipe.storage import Store

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
        self._thread.start()

    def release(self) -> None:
        """Give the lock back if it is still ours."""
        self._stop.set()
        self._thread.join()
        holder = read_holder(self._store)
        if holder is not None and holder.get("token") == self._token:
            self._store.delete(LOCK)

    def check(self) -> None:
        """Raise LockLostError if another process holds the lock now."""
        if self._lost.is_set():
            raise LockLostError(f"run {self._store.url}: another process took this run over")

    def _beat(self) -> None:
        while not self._stop.wait(HEARTBEAT_S):
            try:
                holder = read_holder(self._store)
                if holder is not None and holder.get("token") != self._token:
                    self._lost.set()
                    return
                self._store.write(LOCK, self._content())
            except OSError:
                continue  # a full disk or a passing network fault; the next beat tries again

    def _content(self) -> bytes:
        me = psutil.Process()
        content = {
            "token": self._token,
            "host": socket.gethostname(),
            "boot": _boot_id(),
            "pid": me.pid,
            "process_started": me.create_time(),
            "heartbeat": time.time(),
        }
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

    On this host the process table says it, process start time included, since ids are used again;
    on another host the age of the heartbeat does.
    """
    if holder.get("host") == socket.gethostname() and holder.get("boot") == _boot_id():
        try:
            process = psutil.Process(int(holder["pid"]))
            started: float = process.create_time()
            zombie = process.status() == psutil.STATUS_ZOMBIE
        except (psutil.NoSuchProcess, KeyError, ValueError):
            return False
        return not zombie and abs(started - float(holder["process_started"])) < 1.0
    return bool(time.time() - float(holder.get("heartbeat", 0.0)) < STALE_AFTER_S)


def _boot_id() -> str:
    try:
        with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:  # noqa: PTH123  # a kernel file
            return file.read().strip()
    except OSError:
        return ""


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
