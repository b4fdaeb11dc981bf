"""A DuckDB that evaluates cuts: it reads no file, and keeps to its limits of time and memory."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from functools import lru_cache

import duckdb
import pyarrow as pa

from lenspipe.errors import HopelessError

VIEW = "part"


@dataclass(frozen=True)
class Limits:
    """What one cut may take on one part of the catalogue, and how many threads DuckDB has."""

    seconds: float = 60.0
    memory_mb: int = 2048
    threads: int = 1


@contextmanager
def view(table: pa.Table, limits: Limits) -> Iterator[duckdb.DuckDBPyConnection]:
    """A connection of its own (so threads do not meet) that sees `table` as view `part`."""
    with cursor(limits) as connection:
        connection.register(VIEW, table)
        yield connection
        connection.unregister(VIEW)


@contextmanager
def cursor(limits: Limits) -> Iterator[duckdb.DuckDBPyConnection]:
    """A connection to the database of these limits."""
    with closing(_database(limits.threads, limits.memory_mb).cursor()) as connection:
        yield connection


@contextmanager
def limited(field: str, connection: duckdb.DuckDBPyConnection, limits: Limits) -> Iterator[None]:
    """Interrupt what runs on `connection` after the limit; HopelessError(field) for that, and for
    more memory than there may be.

    DuckDB looks up between vectors of 2,048 rows, so a cut may run over its time by one of them.
    """

    def interrupt() -> None:
        with suppress(duckdb.Error):  # it had just ended
            connection.interrupt()

    timer = threading.Timer(limits.seconds, interrupt)
    timer.start()
    try:
        yield
    except duckdb.InterruptException as error:
        allowed = f"no more than runtime.cut_timeout_s = {limits.seconds:g} s for a part"
        raise HopelessError(field, allowed, "an evaluation that takes longer") from error
    except duckdb.OutOfMemoryException as error:
        allowed = f"no more than runtime.cut_memory_mb = {limits.memory_mb}"
        raise HopelessError(field, allowed, "an evaluation that takes more") from error
    finally:
        timer.cancel()
        timer.join()


@lru_cache(maxsize=4)
def _database(threads: int, memory_mb: int) -> duckdb.DuckDBPyConnection:
    """An in-memory DuckDB that reads no file, loads no extension and cannot be reconfigured.

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
        "enable_external_access = false",
        "lock_configuration = true",
    ):
        connection.execute(f"SET GLOBAL {setting}")
    return connection
