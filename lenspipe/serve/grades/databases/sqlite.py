"""Grades in one SQLite file on a local disk.

Write-ahead log with synchronous=FULL: a commit returns when the log is on disk
(https://www.sqlite.org/pragma.html#pragma_synchronous), so neither a killed process nor a power cut
takes back what was answered. The log needs memory that all processes share: on a network disk it is
not safe (https://www.sqlite.org/wal.html), and PostgreSQL is the answer there.
"""

from __future__ import annotations

import sqlite3
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from lenspipe.errors import CorruptRunError, InputError, StoppedError
from lenspipe.serve.grades.databases import Rows, T

APPLICATION_ID = 0x4C504752  # "LPGR" in the file's header: grades of lenspipe
LAYOUT = 1
BUSY_TIMEOUT_S = 30.0  # how long a writer waits for another one
_TABLES = """
CREATE TABLE lenspipe_grade_events (
    id INTEGER PRIMARY KEY,
    time_us INTEGER NOT NULL,
    key TEXT NOT NULL,
    grader TEXT NOT NULL,
    kind TEXT NOT NULL,
    object_id TEXT,
    object_is_integer INTEGER,
    grade TEXT,
    comment TEXT,
    shown_as TEXT,
    seconds_looked REAL,
    UNIQUE (grader, key)
);
CREATE TABLE lenspipe_grade_schemes (
    id INTEGER PRIMARY KEY,
    time_us INTEGER NOT NULL,
    scheme TEXT NOT NULL
);
CREATE TABLE lenspipe_grade_hidden (
    object_id TEXT NOT NULL,
    object_is_integer INTEGER NOT NULL,
    is_lens INTEGER NOT NULL,
    kind TEXT NOT NULL,
    PRIMARY KEY (object_id, object_is_integer)
)
"""
_NEVER = """
CREATE TRIGGER {table}_{verb} BEFORE {verb} ON {table}
BEGIN SELECT RAISE(ABORT, 'nothing is ever changed or deleted here'); END
"""
_NAMES = ("lenspipe_grade_events", "lenspipe_grade_schemes", "lenspipe_grade_hidden")


class SqliteDatabase:
    """One connection, which threads take in turn. A process that forks opens its own afterwards."""

    def __init__(self, path: Path, writable: bool = True) -> None:
        self._path = path
        self._lock = threading.Lock()
        with self._told():
            self._connection = _connect(path) if writable else _connect_to_read(path)
            try:
                self._prepare(writable)
            except BaseException:
                self._connection.close()
                raise

    def _prepare(self, writable: bool) -> None:
        if writable:
            _use_log(self._connection)
            self._connection.execute("PRAGMA synchronous = FULL")
            self._connection.execute("BEGIN IMMEDIATE")
        found = self._header()
        if found == (0, 0) and writable and not self._execute("SELECT 1 FROM sqlite_master"):
            self._create()
            found = self._header()
        if writable:
            self._connection.execute("COMMIT")
        if found != (APPLICATION_ID, LAYOUT):
            ours = found[0] == APPLICATION_ID
            other = f"layout {found[1]}" if ours else "a database of something else"
            raise InputError(f"grades {self._path}", f"grades of layout {LAYOUT}", other)

    def _header(self) -> tuple[int, int]:
        [[application]] = self._execute("PRAGMA application_id")
        [[layout]] = self._execute("PRAGMA user_version")
        return int(application), int(layout)

    def _create(self) -> None:
        triggers = [_NEVER.format(table=t, verb=v) for t in _NAMES for v in ("UPDATE", "DELETE")]
        for statement in (*_TABLES.split(";"), *triggers):
            self._execute(statement)
        self._execute(f"PRAGMA application_id = {APPLICATION_ID}")
        self._execute(f"PRAGMA user_version = {LAYOUT}")

    def write(self, work: Callable[..., T]) -> T:
        """See `Database.write`."""
        with self._lock, self._told():
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                found = work(self._execute)
                self._connection.execute("COMMIT")
            except BaseException:
                if self._connection.in_transaction:
                    self._connection.execute("ROLLBACK")
                raise
            return found

    def read(self, statement: str, parameters: Sequence[object] = ()) -> Rows:
        """See `Database.read`."""
        with self._lock, self._told():
            return self._execute(statement, parameters)

    def close(self) -> None:
        """See `Database.close`."""
        with self._lock:
            self._connection.close()

    def _execute(self, statement: str, parameters: Sequence[object] = ()) -> Rows:
        return self._connection.execute(statement, tuple(parameters)).fetchall()

    @contextmanager
    def _told(self) -> Iterator[None]:
        try:
            yield
        except (sqlite3.OperationalError, sqlite3.ProgrammingError) as error:
            # A full or read-only disk, a writer that never ends, a file that was closed.
            raise StoppedError(f"grades {self._path}: {error}") from error
        except sqlite3.DatabaseError as error:
            raise CorruptRunError(f"grades {self._path}: {error}") from error


def _connect(path: Path) -> sqlite3.Connection:
    if not path.parent.is_dir():
        raise InputError(f"grades {path}", "a folder that is there", f"no {path.parent}")
    return sqlite3.connect(
        path, timeout=BUSY_TIMEOUT_S, isolation_level=None, check_same_thread=False
    )


def _use_log(connection: sqlite3.Connection) -> None:
    """Write ahead. The first of several processes that open a new file at once changes its mode;
    SQLite turns the others away without waiting."""
    end = time.monotonic() + BUSY_TIMEOUT_S
    while True:
        try:
            connection.execute("PRAGMA journal_mode = WAL")
            return
        except sqlite3.OperationalError:
            if time.monotonic() > end:
                raise
            time.sleep(0.01)


def _connect_to_read(path: Path) -> sqlite3.Connection:
    """A connection that changes nothing. Where the folder may not be written, the file is read as
    one that nobody writes: SQLite cannot share a log there."""
    if not path.is_file():
        raise InputError(f"grades {path}", "a file with grades", "none")
    for mode in ("mode=ro", "immutable=1"):
        connection = sqlite3.connect(
            f"{path.absolute().as_uri()}?{mode}",
            uri=True,
            timeout=BUSY_TIMEOUT_S,
            isolation_level=None,
            check_same_thread=False,
        )
        try:
            connection.execute("SELECT 1 FROM sqlite_master").fetchall()
        except sqlite3.OperationalError:
            connection.close()
            if mode == "immutable=1":
                raise
            continue
        except BaseException:
            connection.close()
            raise
        return connection
    raise AssertionError  # the second mode returned or raised
