"""A DuckDB that evaluates what users write: it reads no file, and keeps to its limits of time and
memory."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from functools import lru_cache

import duckdb
import numpy as np
import psutil
import pyarrow as pa

from lenspipe.errors import HopelessError

VIEW = "part"
_POLL_S = 0.02
_VECTOR_ROWS = 2048  # that DuckDB computes at a time
_BATCH_BYTES = 256 * 1024


@dataclass(frozen=True)
class Limits:
    """What one cut may take on one part of the catalogue, or one query on a run, and how many
    threads DuckDB has. seconds_name, memory_name: what the limits are called where they are set;
    scope: what the first is for."""

    seconds: float = 60.0
    memory_mb: int = 2048
    threads: int = 1
    seconds_name: str = "runtime.cut_timeout_s"
    memory_name: str = "runtime.cut_memory_mb"
    scope: str = " for a part"


@contextmanager
def view(table: pa.Table, limits: Limits) -> Iterator[duckdb.DuckDBPyConnection]:
    """A connection of its own (so threads do not meet) that sees `table` as view `part`."""
    with cursor(limits) as connection:
        connection.register(VIEW, _in_small_batches(table))
        yield connection
        connection.unregister(VIEW)


def _in_small_batches(table: pa.Table) -> pa.Table:
    """The same rows in batches of few bytes: what an expression makes of long text is held for a
    batch, and DuckDB can be stopped between two."""
    mean = table.nbytes / max(table.num_rows, 1)
    rows = int(_BATCH_BYTES / max(mean, 1.0))
    if rows >= _VECTOR_ROWS:
        return table
    return pa.Table.from_batches(table.to_batches(max_chunksize=max(rows, 1)), table.schema)


@contextmanager
def cursor(limits: Limits) -> Iterator[duckdb.DuckDBPyConnection]:
    """A connection to the database of these limits; a new one after DuckDB's own faults, which end
    the database that they meet."""
    with closing(_database(limits.threads, limits.memory_mb).cursor()) as connection:
        try:
            yield connection
        except (duckdb.InternalException, duckdb.FatalException):
            _database.cache_clear()
            raise


class TooMuchMemoryError(HopelessError):
    """The process grew by more than a cut may take while it was evaluated."""


def ask(field: str, query: str, table: pa.Table, limits: Limits) -> dict[str, np.ndarray]:
    """What a query over view `part` gives for `table`, by column, within the limits of cut `field`.

    What is measured of memory is the whole process, where other threads read and evaluate too. So
    what is too much is asked once more, from the size that the process has by then (with what
    DuckDB keeps of the first attempt), and no other query beside it.
    """
    try:
        with _gate.shared():
            return _ask_once(field, query, table, limits)
    except TooMuchMemoryError:
        pass  # asked again when this error's traceback has let go of its arrays
    pa.default_memory_pool().release_unused()
    with _gate.alone():
        return _ask_once(field, query, table, limits)


def _ask_once(field: str, query: str, table: pa.Table, limits: Limits) -> dict[str, np.ndarray]:
    with view(table, limits) as connection, limited(field, connection, limits):
        found: dict[str, np.ndarray] = connection.execute(query).fetchnumpy()
    return found


class _Gate:
    """Many pass at once, or one alone."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._inside = 0
        self._claimed = False

    @contextmanager
    def shared(self) -> Iterator[None]:
        """Beside others who share."""
        with self._changed:
            self._changed.wait_for(lambda: not self._claimed)
            self._inside += 1
        try:
            yield
        finally:
            with self._changed:
                self._inside -= 1
                self._changed.notify_all()

    @contextmanager
    def alone(self) -> Iterator[None]:
        """After all who are inside have left; whoever comes later waits."""
        with self._changed:
            self._changed.wait_for(lambda: not self._claimed)
            self._claimed = True
            self._changed.wait_for(lambda: self._inside == 0)
        try:
            yield
        finally:
            with self._changed:
                self._claimed = False
                self._changed.notify_all()


_gate = _Gate()


@contextmanager
def limited(field: str, connection: duckdb.DuckDBPyConnection, limits: Limits) -> Iterator[None]:
    """HopelessError(field) where what runs on `connection` goes past a limit, of time or memory.

    DuckDB can be stopped between vectors of rows only, so a cut may run over by one of them.
    """
    watch = _Watch(connection, limits)
    watch.start()
    try:
        yield
    except duckdb.InterruptException as error:
        raise watch.told(field) from error
    except duckdb.OutOfMemoryException as error:
        raise _too_much_memory(field, limits) from error
    finally:
        watch.end()


class _Watch(threading.Thread):
    """Interrupts a connection from when a limit is passed until told to end."""

    def __init__(self, connection: duckdb.DuckDBPyConnection, limits: Limits) -> None:
        super().__init__(name="lenspipe-cut-limits", daemon=True)
        self._connection, self._limits = connection, limits
        self._ended = threading.Event()
        self._too_large = False

    def run(self) -> None:
        """Look at clock and memory every few milliseconds."""
        process = psutil.Process()
        # DuckDB's own limit leaves out the text that functions make, so the process is looked at.
        most = process.memory_info().rss + self._limits.memory_mb * 1024**2
        deadline = time.monotonic() + self._limits.seconds
        while not self._ended.wait(_POLL_S):
            self._too_large = self._too_large or process.memory_info().rss > most
            if self._too_large or time.monotonic() > deadline:
                with suppress(duckdb.Error):  # it had just ended
                    self._connection.interrupt()

    def end(self) -> None:
        """No interrupt comes after this."""
        self._ended.set()
        self.join()

    def told(self, field: str) -> HopelessError:
        """Which limit it was."""
        if self._too_large:
            return _too_much_memory(field, self._limits)
        limits = self._limits
        allowed = f"no more than {limits.seconds_name} = {limits.seconds:g} s{limits.scope}"
        return HopelessError(field, allowed, "an evaluation that takes longer")


def _too_much_memory(field: str, limits: Limits) -> TooMuchMemoryError:
    allowed = f"no more than {limits.memory_name} = {limits.memory_mb}"
    return TooMuchMemoryError(field, allowed, "an evaluation that takes more")


@lru_cache(maxsize=4)
def _database(threads: int, memory_mb: int) -> duckdb.DuckDBPyConnection:
    return closed_database(threads, memory_mb)


def closed_database(threads: int, memory_mb: int) -> duckdb.DuckDBPyConnection:
    """A new in-memory DuckDB that reads no file, loads no extension and cannot be reconfigured.

    With one thread, rows come out in the order they went in; with more, DuckDB keeps that order by
    `preserve_insertion_order`.
    """
    connection = duckdb.connect(config={"threads": threads, "memory_limit": f"{memory_mb}MB"})
    for setting in (
        "temp_directory = ''",
        "autoload_known_extensions = false",
        "autoinstall_known_extensions = false",
        "python_enable_replacements = false",
        "preserve_insertion_order = true",
        "TimeZone = 'UTC'",  # not the host's: hosts differ, and a row is cut on all or on none
        "enable_external_access = false",
        "lock_configuration = true",
    ):
        connection.execute(f"SET GLOBAL {setting}")
    return connection
