"""Grades in PostgreSQL, for several hosts or a run on an object store.

One database, or one schema (`?options=-csearch_path%3DNAME`), holds the grades of one run. The
driver psycopg is the extra `postgres`; it is imported where a URL asks for it.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from lenspipe.errors import InputError, StoppedError
from lenspipe.redaction import redact
from lenspipe.serve.grades.databases import Rows, T

# Writers take this lock in turn, so that ids rise in the order in which events can be seen: who
# has read up to an id misses none below it.
_LOCK = 0x4C504752
_CONNECT_TIMEOUT_S = 10
_TABLES = """
CREATE TABLE lenspipe_grade_events (
    id BIGINT PRIMARY KEY,
    time_us BIGINT NOT NULL,
    key TEXT NOT NULL,
    grader TEXT NOT NULL,
    kind TEXT NOT NULL,
    object_id TEXT,
    object_is_integer SMALLINT,
    grade TEXT,
    comment TEXT,
    shown_as TEXT,
    seconds_looked DOUBLE PRECISION,
    UNIQUE (grader, key)
);
CREATE TABLE lenspipe_grade_schemes (
    id BIGINT PRIMARY KEY,
    time_us BIGINT NOT NULL,
    scheme TEXT NOT NULL
);
CREATE TABLE lenspipe_grade_hidden (
    object_id TEXT NOT NULL,
    object_is_integer SMALLINT NOT NULL,
    is_lens SMALLINT NOT NULL,
    kind TEXT NOT NULL,
    PRIMARY KEY (object_id, object_is_integer)
);
CREATE FUNCTION lenspipe_grade_never() RETURNS trigger LANGUAGE plpgsql AS
$$ BEGIN RAISE EXCEPTION 'nothing is ever changed or deleted here'; END $$;
CREATE TRIGGER never BEFORE UPDATE OR DELETE OR TRUNCATE ON lenspipe_grade_events
    EXECUTE FUNCTION lenspipe_grade_never();
CREATE TRIGGER never BEFORE UPDATE OR DELETE OR TRUNCATE ON lenspipe_grade_schemes
    EXECUTE FUNCTION lenspipe_grade_never();
CREATE TRIGGER never BEFORE UPDATE OR DELETE OR TRUNCATE ON lenspipe_grade_hidden
    EXECUTE FUNCTION lenspipe_grade_never()
"""
# Not by `to_regclass`, which may answer from what the connection knew before it waited for a lock.
_THERE = (
    "SELECT 1 FROM pg_catalog.pg_class WHERE relname = 'lenspipe_grade_events' "
    "AND pg_catalog.pg_table_is_visible(oid)"
)
# A commit waits for the disk, whatever the server does by default.
_DURABLE = (
    "SELECT set_config('synchronous_commit', 'on', false) "
    "WHERE current_setting('synchronous_commit') = 'off'"
)


class PostgresDatabase:
    """One connection, which threads take in turn, and which is made anew where it was lost."""

    def __init__(self, url: str, writable: bool = True) -> None:
        self._url = url
        self._psycopg = _driver()
        self._lock = threading.Lock()
        self._connection: Any = None
        there = bool(self.read(_THERE))
        if not there and not writable:
            raise InputError(f"grades {redact(url)}", "a database with grades", "none")
        if not there:
            self.write(_create)

    def write(self, work: Callable[..., T]) -> T:
        """See `Database.write`."""
        return self._twice(lambda: self._transaction(work))

    def read(self, statement: str, parameters: Sequence[object] = ()) -> Rows:
        """See `Database.read`."""
        return self._twice(lambda: self._execute(statement, parameters))

    def close(self) -> None:
        """See `Database.close`."""
        with self._lock:
            if self._connection is not None:
                self._connection.close()

    def _transaction(self, work: Callable[..., T]) -> T:
        with self._connection.transaction():
            self._execute("SELECT pg_advisory_xact_lock(?)", (_LOCK,))
            return work(self._execute)

    def _twice(self, attempt: Callable[[], T]) -> T:
        """Once more on a new connection where the old one was lost: a server that was started anew
        is met again at the next click."""
        with self._lock, self._told():
            if self._connection is not None and not self._connection.closed:
                try:
                    return attempt()
                except self._psycopg.OperationalError:
                    if not self._connection.closed and not self._connection.broken:
                        raise
            self._connect()
            return attempt()

    def _connect(self) -> None:
        if self._connection is not None:
            self._connection.close()
        self._connection = self._psycopg.connect(
            self._url, autocommit=True, connect_timeout=_CONNECT_TIMEOUT_S
        )
        self._execute(_DURABLE)

    def _execute(self, statement: str, parameters: Sequence[object] = ()) -> Rows:
        written = statement.replace("?", "%s") if parameters else statement
        cursor = self._connection.execute(written, tuple(parameters) or None)
        return cursor.fetchall() if cursor.description is not None else []

    @contextmanager
    def _told(self) -> Iterator[None]:
        try:
            yield
        except self._psycopg.ProgrammingError as error:  # a URL that is none, a right that lacks
            raise InputError(f"grades {redact(self._url)}", "a database to use", error) from error
        except self._psycopg.Error as error:
            raise StoppedError(f"grades {redact(self._url)}: {error}") from error


def _driver() -> Any:
    try:
        import psycopg
    except ImportError as error:
        raise InputError(
            "grades postgresql://…", "psycopg (pip install 'lenspipe[postgres]')", error
        ) from error
    return psycopg


def _create(execute: Callable[..., Rows]) -> None:
    # Another process may have made them while this one waited for the lock.
    if not execute(_THERE):
        execute(_TABLES)
