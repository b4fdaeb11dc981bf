"""The Ray that a run starts for itself: its folder, its servers, and that nothing of it stays; and
the servers on this host of one that others started."""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Set
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil

_PREFIX = "lenspipe-ray-"
# Ray's sockets lie 64 characters deeper, and an address of a socket has at most 107: unix(7).
_LONGEST_PATH = 107 - 64
_LOOK_EVERY_S = 1.0
_END_S = 5.0
_GRACE_S = 15.0  # after 60 s without its control server Ray itself ends the process, in its words
_SERVERS = {"raylet": "Ray's node server (raylet)", "gcs_server": "Ray's control server (GCS)"}


@contextmanager
def session_folder() -> Iterator[Path]:
    """A folder for one Ray's logs, sockets and spilled objects, removed at the end.

    Folders whose runs were killed are removed first: a folder is in use while its owner holds a
    lock on it, which the kernel takes back from the dead.
    """
    base = _base()
    remove_abandoned(base)
    hidden = Path(tempfile.mkdtemp(prefix=f".{_PREFIX}", dir=base))
    lock = os.open(hidden, os.O_RDONLY)
    fcntl.flock(lock, fcntl.LOCK_EX)
    folder = hidden.rename(base / hidden.name[1:])  # seen by others only once it is locked
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        os.close(lock)


def remove_abandoned(base: Path) -> None:
    """Remove this user's session folders that no living process holds."""
    for folder in base.glob(f"{_PREFIX}*"):
        try:
            lock = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
        except OSError:  # another user's, or gone since
            continue
        try:
            if os.fstat(lock).st_uid == os.getuid():
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(folder, ignore_errors=True)
        except BlockingIOError:
            continue
        finally:
            os.close(lock)


def _base() -> Path:
    wanted = Path(os.environ.get("RAY_TMPDIR") or tempfile.gettempdir())
    longest = len(str(wanted / f"{_PREFIX}12345678"))
    return wanted if longest <= _LONGEST_PATH else Path("/tmp")  # noqa: S108 - mkdtemp makes it safe


class Servers:
    """Ray's servers that this process needs, and what came from a Ray that it has started; without
    any, nothing is ever dead."""

    def __init__(self) -> None:
        self._started: set[psutil.Process] = set()
        self._known: list[tuple[str, psutil.Process]] = []
        self._asked = 0.0

    def find(self, others: Set[psutil.Process]) -> None:
        """Note what was started: the children but for those that were there before."""
        self._started = children() - others
        for child in self._started:
            name = child.name()
            if name in _SERVERS:
                self._known.append((_SERVERS[name], child))

    def join(self, session: str, raylet_socket: str) -> None:
        """Note those on this host of a Ray that others started. session: its folder here;
        raylet_socket: of this node, where the host has several."""
        told = {
            "raylet": f"--raylet_socket_name={raylet_socket}",
            "gcs_server": f"--session-dir={session}",
        }
        for process in psutil.process_iter():
            with suppress(psutil.Error):
                name = process.name()
                if name in _SERVERS and told[name] in process.cmdline():
                    self._known.append((_SERVERS[name], process))

    @contextmanager
    def ending(self) -> Iterator[None]:
        """While they are ended on purpose; what then still runs is killed and waited for: it would
        go on writing into the session's folder."""
        self._known.clear()
        all_started = family(self._started)
        try:
            yield
        finally:
            end(all_started)
            psutil.wait_procs(all_started, timeout=_END_S)
            self._started = set()

    def dead(self, at_once: bool = False) -> str | None:
        """What to call the first that has ended; None where all live, or lived this second unless
        `at_once`."""
        if not at_once and time.monotonic() - self._asked < _LOOK_EVERY_S:
            return None
        self._asked = time.monotonic()
        return self._first_dead()

    def watch(self, end_now: Callable[[str], None]) -> None:
        """Call `end_now` from a thread where one died and the main thread, which may be inside a
        call that waits for it, took no notice."""

        def look() -> None:
            while self._known and self._first_dead() is None:
                time.sleep(_LOOK_EVERY_S)
            time.sleep(_GRACE_S if self._known else 0.0)
            if (dead := self._first_dead()) is not None:
                end_now(dead)

        threading.Thread(target=look, name="servers", daemon=True).start()

    def _first_dead(self) -> str | None:
        return next((told for told, process in list(self._known) if not _lives(process)), None)


def _lives(process: psutil.Process) -> bool:
    try:
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def children() -> set[psutil.Process]:
    """This process's own, without theirs."""
    return set(psutil.Process().children())


def family(processes: Iterable[psutil.Process]) -> list[psutil.Process]:
    """They and all that came from them."""
    found = []
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            found += [process, *process.children(recursive=True)]
    return found


def end(processes: Iterable[psutil.Process]) -> None:
    """Kill them, in no order and without waiting."""
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            process.kill()
