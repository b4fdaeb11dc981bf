"""Queries from outside, each in a process of its own: whatever one does, the service goes on."""

from __future__ import annotations

import multiprocessing
import time
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any

import psutil
import pyarrow as pa

from lenspipe.catalogue.query import ask
from lenspipe.errors import HopelessError, LenspipeError, StoppedError
from lenspipe.run.status import open_run
from lenspipe.select.database import Limits

# What each person said is not for the others, who are to judge for themselves.
PRIVATE = frozenset({"grades", "grade_events"})
_POLL_S = 0.02
_BEGIN_S = 60.0  # the first of all processes begins when the server that it is forked from has
_GRACE_S = 1.0  # in which a query ends by its own limits, with its own words
_MODULES = ["lenspipe.cli", "lenspipe.catalogue.query", "lenspipe.run.status", "hats"]


@dataclass(frozen=True)
class QueryLimits:
    """What queries from outside may take.

    seconds, memory_mb: of one; at_once: how many run; waiting: how many wait for their turn, and
    wait_s: how long; rows: most that one answers with, whatever it asks for.
    """

    seconds: float = 60.0
    memory_mb: int = 1024
    at_once: int = 2
    waiting: int = 16
    wait_s: float = 10.0
    rows: int = 100_000


@dataclass(frozen=True)
class Answer:
    """Rows of a query. overflow: there were more."""

    rows: pa.Table
    overflow: bool


class QueryProcesses:
    """Runs queries on one run's tables; how many at once is the caller's to say (`Turns`)."""

    def __init__(self, run_url: str, limits: QueryLimits) -> None:
        self._run_url, self._limits = run_url, limits
        # A server that has its modules and no threads is forked: milliseconds, not a second.
        self._context = multiprocessing.get_context("forkserver")
        self._context.set_forkserver_preload(_MODULES)

    def ask(
        self, text: str, rows: int | None = None, extra: dict[str, pa.Table] | None = None
    ) -> Answer:
        """The first `rows` rows of one SELECT of DuckDB's SQL.

        extra: tables beside the run's. InputError where the text is no query over the tables, or
        goes past a limit; CorruptRunError where files are lost.
        """
        most = self._limits.rows if rows is None else min(rows, self._limits.rows)
        ours, theirs = self._context.Pipe()
        process = self._context.Process(
            target=_answer, args=(theirs, self._run_url, text, most, extra or {}, self._limits)
        )
        process.start()
        theirs.close()
        try:
            return self._await(ours, process)
        finally:
            with suppress(ProcessLookupError):
                process.kill()
            process.join()
            process.close()
            ours.close()

    def _await(self, ours: Connection, process: Any) -> Answer:
        if not ours.poll(_BEGIN_S):
            raise StoppedError("a query's process did not begin: try again")
        deadline = time.monotonic() + self._limits.seconds + _GRACE_S
        try:
            ours.recv()
        except EOFError as error:
            raise StoppedError("a query's process died: try again") from error
        while not ours.poll(_POLL_S):
            if time.monotonic() > deadline:
                raise HopelessError("query", f"at most {self._limits.seconds:g} s", "a longer one")
            if _resident_mb(process.pid) > 2 * self._limits.memory_mb:
                expected = f"at most {self._limits.memory_mb} MB"
                raise HopelessError("query", expected, "one that takes more")
        try:
            found = ours.recv()
            if isinstance(found, LenspipeError):
                raise found
            overflow: bool = found
            return Answer(_read(ours.recv_bytes()), overflow)
        except EOFError as error:
            raise StoppedError("a query's process died: try again") from error


def _resident_mb(pid: int) -> float:
    try:
        return float(psutil.Process(pid).memory_info().rss / 1024**2)
    except psutil.Error:
        return 0.0


def _answer(
    pipe: Connection,
    run_url: str,
    text: str,
    rows: int,
    extra: dict[str, pa.Table],
    limits: QueryLimits,
) -> None:
    """In the process of the query: sends that it began, then an error, or whether there were more
    rows, and the rows."""
    pipe.send("begun")
    own = Limits(limits.seconds, limits.memory_mb, 1, "time", "memory (MB)", scope="")
    try:
        table = ask(open_run(run_url)[0], text, own, rows + 1, extra, PRIVATE)
        content = _written(table.slice(0, rows))
    except LenspipeError as error:
        pipe.send(error)
        return
    pipe.send(table.num_rows > rows)
    pipe.send_bytes(content)


def _written(table: pa.Table) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    content: bytes = sink.getvalue().to_pybytes()
    return content


def _read(content: bytes) -> pa.Table:
    with pa.ipc.open_stream(content) as reader:
        return reader.read_all()
