"""One run directory, one writer: a lock that tells a live run from a dead one."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import socket
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psutil

from lenspipe.errors import LenspipeError, RunLockedError
from lenspipe.processes.ray_job import own_job
from lenspipe.run_directory import LOCK
from lenspipe.storage.store import Store, is_storage_fault

HEARTBEAT_S = 15.0
# A holder on another host may be dead when its heartbeat is further than this from our clock.
STALE_AFTER_S = 120.0
# It is dead when the lock did not change while it was watched for so long, by our clock alone:
# the clocks of two hosts may differ, and either may be set.
WATCH_S = 3 * HEARTBEAT_S
_LOOK_S = 1.0
_PATIENT_LOOK_S = 5.0
# How long a process waits for another of its host that looks at the lock, and how often it asks.
GUARD_S = 30.0
_TURN_S = 0.02
# What a filesystem says that has no flock (some NFS mounts); the lock file alone decides there.
_NO_FLOCK = frozenset((errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL))


class LockLostError(LenspipeError):
    """Another process took this run over; nothing more may be committed."""


class RunLock:
    """Held while a run writes; `check` raises LockLostError once another process took over."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._token = uuid.uuid4().hex
        self._process = _this_process()
        self._since = datetime.now(UTC).isoformat(timespec="seconds")
        self._seen = _clocks()
        self._stop = threading.Event()
        self._lost = threading.Event()
        self._turn = threading.Lock()
        self._thread = threading.Thread(target=self._beat, name="run-lock", daemon=True)

    def acquire(
        self, told: Callable[[str], None] = lambda _line: None, wait_s: float = 0.0
    ) -> None:
        """Take the lock; RunLockedError names the holder where it lives.

        told: hears that a silent holder on another host is watched, which takes `WATCH_S`, and that
        a live one is waited for. wait_s: how long its end, or its silence, is waited for; longer
        than `STALE_AFTER_S` + `WATCH_S` outlasts one that died on a host that is gone.
        """
        end = time.monotonic() + wait_s
        waiting = False
        while True:
            try:
                self._acquire(told)
                return
            except RunLockedError as error:
                left = end - time.monotonic()
                if left <= 0:
                    raise
                if not waiting:
                    told(f"{error}; its end is waited for, at most {wait_s:g} s")
                waiting = True
            time.sleep(min(_PATIENT_LOOK_S, left))

    def _acquire(self, told: Callable[[str], None]) -> None:
        seen = _read(self._store)
        if seen is not None:
            self._wait_for_silence(seen, told)
        try:
            with _guard(self._store):
                now = _read(self._store)
                if now != seen:
                    raise self._refusal(now)
                if not _take(self._store, seen, self._content()):
                    raise self._refusal(_read(self._store))
        except TimeoutError as error:
            field = f"run {self._store.url}"
            raise RunLockedError(field, "no other run writing there", error.strerror) from error
        self._seen = _clocks()
        self._thread.start()

    def _wait_for_silence(self, seen: bytes, told: Callable[[str], None]) -> None:
        """Until the holder is known to be dead; RunLockedError where it lives."""
        holder = _parse(seen)
        if is_alive(holder):
            raise self._refusal(seen)
        if is_near(holder) or not holder:
            return
        told(
            f"the lock of {describe_holder(holder)} is watched for {WATCH_S:g} s: "
            "where it stays silent, its run is taken over"
        )
        end = time.monotonic() + WATCH_S
        while time.monotonic() < end:
            time.sleep(min(_LOOK_S, WATCH_S))
            now = _read(self._store)
            if now != seen:
                raise self._refusal(now)

    def _refusal(self, content: bytes | None) -> RunLockedError:
        found = "one that just began" if content is None else describe_holder(_parse(content))
        return RunLockedError(f"run {self._store.url}", "no other run writing there", found)

    def release(self) -> None:
        """Give the lock back if it is still ours.

        Storage that refuses leaves it there: what ended the run is to be told, and the lock of a
        process that is gone stops nobody.
        """
        self._stop.set()
        self._thread.join()
        try:
            with _guard(self._store):
                if self._is_ours():
                    self._store.delete(LOCK)
        except Exception as error:
            if not is_storage_fault(error):
                raise

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
            raise LockLostError(
                f"run {self._store.url}: {self._taker()} took this run over; nothing more was "
                "committed here"
            )

    def _taker(self) -> str:
        with suppress(Exception):  # only told
            holder = read_holder(self._store)
            if holder:
                return describe_holder(holder)
        return "another process"

    def _beat(self) -> None:
        while not self._stop.wait(HEARTBEAT_S) and not self._lost.is_set():
            # Whatever it is, the next beat tries again; if it stays, `check` meets it too and
            # raises it where the run sees it.
            with suppress(Exception):
                self._renew()

    def _renew(self) -> None:
        """A heartbeat into the lock. One that is gone was taken over and given back since.

        One thread at a time: the beat of another, between a look and a write here, would pass for a
        stranger's.
        """
        with self._turn, _guard(self._store):
            at = _clocks()
            if not self._beat_into():
                self._lost.set()
                return
            self._seen = at

    def _beat_into(self) -> bool:
        """Write a heartbeat; False where the lock is not ours. One step on S3: a process that was
        stopped just here must not overwrite the lock of another."""
        try:
            content, tag = self._store.tagged(LOCK)
        except FileNotFoundError:
            return False
        ours = _parse(content).get("token") == self._token
        return ours and self._store.swap(LOCK, self._content(), tag)

    def _is_ours(self) -> bool:
        holder = read_holder(self._store)
        return holder is not None and holder.get("token") == self._token

    def _content(self) -> bytes:
        content = {
            "token": self._token,
            **self._process,
            "since": self._since,
            "heartbeat": time.time(),
        }
        return json.dumps(content).encode()


def read_holder(store: Store) -> dict[str, Any] | None:
    """Who holds the lock; None where nobody does. A lock that is not JSON names a dead holder."""
    content = _read(store)
    return None if content is None else _parse(content)


def describe_holder(holder: dict[str, Any]) -> str:
    """Who holds a lock, in words: process, host, job of a cluster, and since when."""
    told = f", job {job}" if (job := holder.get("job")) else ""
    told += f", since {since}" if (since := holder.get("since")) else ""
    return f"process {holder.get('pid')} on {holder.get('host')}{told}"


def _read(store: Store) -> bytes | None:
    try:
        return store.read(LOCK)
    except FileNotFoundError:
        return None


def _parse(content: bytes) -> dict[str, Any]:
    try:
        parsed = json.loads(content)
    except ValueError:
        return {}
    return parsed if isinstance(parsed, dict) else {}


def _take(store: Store, seen: bytes | None, content: bytes) -> bool:
    """Make the lock ours, in the place of a dead holder's (`seen`) or of none; False where another
    process was faster."""
    if seen is None:
        return store.create(LOCK, content)
    if store.is_local:
        return _remove(store, seen) and store.create(LOCK, content)
    try:
        now, tag = store.tagged(LOCK)
    except FileNotFoundError:
        return False
    return now == seen and store.swap(LOCK, content, tag)


def _remove(store: Store, content: bytes) -> bool:
    """Remove the lock of a dead holder from a local disk; False where it is another one's by now.

    Where nothing keeps two processes apart (no flock), both may have found the same dead holder:
    locally the lock is moved aside, which only one of them can do, and looked at there.
    """
    lock = store.local_path(LOCK)
    aside = lock.with_name(f".tmp-{uuid.uuid4().hex[:12]}-{LOCK}")
    try:
        lock.replace(aside)
    except FileNotFoundError:
        return False
    try:
        if aside.read_bytes() == content:
            return True
        with suppress(FileExistsError):
            os.link(aside, lock)
        return False
    finally:
        aside.unlink(missing_ok=True)


def is_alive(holder: dict[str, Any]) -> bool:
    """Whether the process that wrote the lock still runs.

    Where the holder's process ids are ours (same host, boot and PID namespace: containers may share
    the first two) the process table says it, process start included, since ids are used again;
    elsewhere the heartbeat does, and one that is not recent by our clock says only that it may be
    dead: see `RunLock.acquire`.
    """
    try:
        if is_near(holder):
            return _runs(holder)
        return abs(time.time() - float(holder.get("heartbeat", 0.0))) < STALE_AFTER_S
    except (KeyError, TypeError, ValueError):  # not a lock that we wrote
        return False


def is_near(holder: dict[str, Any]) -> bool:
    """Whether the holder's process id means the same here."""
    return all(holder.get(key) == value for key, value in _process_table().items())


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
        **({} if (job := own_job()) is None else {"job": job}),
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
    """Only one process of this host at a time looks at the lock and takes it. TimeoutError where
    another does not move: one that was stopped just here would else stop all others for ever."""
    if not store.is_local:
        yield
        return
    store.local_path("").mkdir(parents=True, exist_ok=True)
    descriptor = os.open(store.local_path(""), os.O_RDONLY)
    try:
        _wait_for_turn(descriptor)
        yield
    finally:
        os.close(descriptor)


def _wait_for_turn(descriptor: int) -> None:
    deadline = time.monotonic() + GUARD_S
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            if time.monotonic() > deadline:
                told = f"a process of this host that has been at its lock for {GUARD_S:g} s"
                raise TimeoutError(errno.ETIMEDOUT, told) from None
            time.sleep(_TURN_S)
        except OSError as error:
            if error.errno in _NO_FLOCK:
                return
            raise
