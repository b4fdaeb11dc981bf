"""Where commits go: gathered for at most a second, then written together.

A file that is durable costs the driver milliseconds, an object store tens of them; a shard may take
less. What a killed driver had not written yet is done again by the resume.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import TypeVar

from lenspipe.errors import StoppedError
from lenspipe.run.lock import RunLock
from lenspipe.run.shard_record import ShardRecord
from lenspipe.run_directory import RunDirectory
from lenspipe.storage.patience import patiently
from lenspipe.storage.store import is_storage_fault
from lenspipe.telling.events import Events

GROUP_S = 1.0
GROUP_RECORDS = 128
R = TypeVar("R")


class Ledger:
    """The run, the lock that allows commits, and who is told of them."""

    def __init__(
        self,
        run: RunDirectory,
        lock: RunLock,
        events: Events,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.run = run
        self.lock = lock
        self.events = events
        self._clock = clock
        self._waiting: list[ShardRecord] = []
        self._written = float("-inf")

    def commit(self, record: ShardRecord) -> None:
        """Commit a shard: at once where none was committed in the last second, else soon.

        LockLostError where another process took the run over.
        """
        self._waiting.append(record)
        self.flush_if_due()

    def flush_if_due(self) -> None:
        """Write what waits, where it is much or a second has passed since the last time."""
        if len(self._waiting) >= GROUP_RECORDS or self._clock() - self._written >= GROUP_S:
            self.flush()

    def flush(self) -> None:
        """Write what waits."""
        if not self._waiting:
            return
        self.patiently(self.lock.check)
        self.patiently(lambda: self.run.commit(*self._waiting))
        self._told()

    @contextmanager
    def gathering(self) -> Iterator[None]:
        """At the end nothing waits any more; where the block fails, as far as storage lets it."""
        try:
            yield
        except BaseException as error:
            with suppress(Exception):  # what ended the block is to be told, not this
                self.lock.check()
                if self._waiting:
                    self.run.commit(*self._waiting)
                    self._told()
            if isinstance(error, StoppedError):
                self._refuse_lost()
            raise
        self.flush()

    def patiently(self, call: Callable[[], R]) -> R:
        """The call's result, asked for again while storage refuses; rests are told.

        CorruptRunError at once where a file is gone that a commit or the plan names.
        """

        def attempt() -> R:
            try:
                return call()
            except FileNotFoundError:
                self._refuse_lost()
                raise

        return patiently(attempt, near=self.run.url, told=self.events.message)

    def _refuse_lost(self) -> None:
        """CorruptRunError where a file of the run is gone; storage that refuses hides no cause."""
        try:
            self.lock.check()  # who took the run over may have erased it
            self.run.refuse_lost()
        except Exception as error:
            if not is_storage_fault(error):
                raise

    def _told(self) -> None:
        self._written = self._clock()
        written, self._waiting = self._waiting, []
        for record in written:
            self.events.committed(record)
