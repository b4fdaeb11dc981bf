"""A stage of a run by itself, for measurements: the run taken up for writing, and a stopwatch."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

from lenspipe.metrics import RunMetrics
from lenspipe.run.ledger import Ledger
from lenspipe.run.lock import RunLock
from lenspipe.run_directory import RunDirectory, Stage
from lenspipe.telling.events import Events
from lenspipe.telling.progress import SilentProgress


class Stopwatch(RunMetrics):
    """Metrics that note when the first item of `stage` is handed out, its workers being ready."""

    def __init__(self, stage: Stage) -> None:
        super().__init__("bench")
        self._stage = stage
        self._began: float | None = None

    def queue(self, stage: Stage, depth: int, running: int | None = None) -> None:
        """The first call of a stage comes when its workers are ready."""
        super().queue(stage, depth, running)
        if stage == self._stage and self._began is None:
            self._began = time.perf_counter()

    def events(self) -> Events:
        """What a run tells this stopwatch."""
        return Events(self, SilentProgress())

    def seconds(self) -> float:
        """Since then. RuntimeError where nothing was handed out."""
        if self._began is None:
            raise RuntimeError(f"stage {self._stage} had nothing to do")
        return time.perf_counter() - self._began


@contextmanager
def opened(run: RunDirectory, events: Events) -> Iterator[Ledger]:
    """The run taken up for writing, as a survey does it."""
    lock = RunLock(run.store)
    lock.acquire()
    try:
        yield Ledger(run, lock, events)
    finally:
        lock.release()
