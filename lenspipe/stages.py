"""One stage over its work: skip what is committed, run the rest, isolate what kills, commit."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import deque
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Generic, Protocol, Self, TypeVar

from lenspipe.contracts import Reason
from lenspipe.events import Events
from lenspipe.intervals import Interval, pending
from lenspipe.lock import RunLock
from lenspipe.patience import patiently
from lenspipe.run_directory import RunDirectory, ShardRecord, Stage
from lenspipe.runtime import Outcome, Pool, PoolEvents, PoolOptions


class Work(Hashable, Protocol):
    """A piece of a stage's work: rows that are committed together."""

    @property
    def interval(self) -> Interval:
        """The rows, half open."""
        ...

    def split(self) -> Sequence[Self]:
        """Smaller pieces of the same rows; itself alone where it cannot be divided."""
        ...


W = TypeVar("W", bound=Work)
R = TypeVar("R")


@dataclass(frozen=True)
class Ledger:
    """Where commits go: the run, the lock that allows them, and who is told of them."""

    run: RunDirectory
    lock: RunLock
    events: Events

    def commit(self, record: ShardRecord) -> None:
        """Commit a shard; LockLostError where another process took the run over."""
        self.patiently(self.lock.check)
        self.patiently(lambda: self.run.commit(record))
        self.events.committed(record)

    def patiently(self, call: Callable[[], R]) -> R:
        """The call's result, asked for again while storage refuses; rests are told."""
        return patiently(call, near=self.run.url, told=self.events.message)


@dataclass(frozen=True)
class StageSpec(Generic[W]):
    """How a stage works. worker: builds the callable `work -> record` inside an actor.

    quarantine: makes the record of work that no attempt could do and that cannot be divided.
    feed: where given, runs as its own task and hands its result to the worker.
    """

    stage: Stage
    worker: Callable[[], Callable[..., ShardRecord]]
    quarantine: Callable[[W, Reason, str], ShardRecord]
    options: PoolOptions
    feed: Callable[[W], Any] | None = None


def run_stage(ledger: Ledger, spec: StageSpec[W], planned: Sequence[W]) -> None:
    """Do all of `planned` that is not committed yet; every row ends in exactly one commit."""
    events = ledger.events
    done = ledger.run.records(spec.stage)
    queue = deque(remaining(planned, [(record.start, record.stop) for record in done]))
    total = sum(stop - start for start, stop in (work.interval for work in planned))
    events.stage_started(spec.stage, total, len(planned), done)
    if queue:
        options = replace(spec.options, workers=min(spec.options.workers, len(queue)))
        pool_events = PoolEvents(
            retried=lambda detail: events.retried(spec.stage, detail),
            restarted=events.actor_restarted,
            in_flight=lambda count: events.queue(spec.stage, len(queue), count),
        )
        with Pool(spec.worker, options, pool_events, spec.feed) as pool:
            for outcome in pool.run(queue):
                _settle(ledger, spec, outcome, queue)
    events.stage_finished(spec.stage)


def remaining(planned: Iterable[W], done: Sequence[Interval]) -> Iterator[W]:
    """Work of which no row is committed; work of which some are is split until that is so."""
    pending([], done)  # refuses commits that overlap
    ordered = sorted(done)
    starts = [start for start, _ in ordered]
    stops = [stop for _, stop in ordered]
    for work in planned:
        yield from _uncovered(work, starts, stops)


def _uncovered(work: W, starts: list[int], stops: list[int]) -> Iterator[W]:
    start, stop = work.interval
    first, last = bisect_right(stops, start), bisect_left(starts, stop)
    if first >= last:
        yield work
        return
    covered = sum(
        min(stop, stops[index]) - max(start, starts[index]) for index in range(first, last)
    )
    if covered == stop - start:
        return
    for piece in work.split():
        yield from _uncovered(piece, starts, stops)


def _settle(
    ledger: Ledger, spec: StageSpec[W], outcome: Outcome[W, ShardRecord], queue: deque[W]
) -> None:
    if outcome.value is None:
        pieces = outcome.item.split()
        if len(pieces) > 1:
            queue.extend(pieces)
            ledger.events.split(spec.stage, outcome.detail)
            return
        reason = outcome.reason or Reason.WORKER_DIED
        record = ledger.patiently(lambda: spec.quarantine(outcome.item, reason, outcome.detail))
    else:
        record = outcome.value
    ledger.commit(record.model_copy(update={"attempt": outcome.attempt}))
