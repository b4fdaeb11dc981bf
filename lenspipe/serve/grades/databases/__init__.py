"""Databases that hold grades: what each does for `lenspipe.serve.grades.store`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol, TypeVar

T = TypeVar("T")
Rows = list[tuple[Any, ...]]


class Execute(Protocol):
    """Runs one statement, with `?` for each parameter."""

    def __call__(self, statement: str, parameters: Sequence[object] = ()) -> Rows:
        """Rows of its answer; none where it has none."""


class Database(Protocol):
    """Safe in several threads, and beside other processes that have the same database open."""

    def write(self, work: Callable[[Execute], T]) -> T:
        """Do `work` in one transaction, alone among all writers; what it wrote is on disk when this
        returns. It may be done twice where the connection was lost, so what it writes must be the
        same at the second time. StoppedError where the database cannot be written."""

    def read(self, statement: str, parameters: Sequence[object] = ()) -> Rows:
        """Rows of one statement. StoppedError where the database cannot be read."""

    def close(self) -> None:
        """Let go of it."""
