"""One stage over its work: skip what is committed, run the rest, isolate what kills, commit."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import deque
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Generic, Protocol, Self, TypeVar

from lenspipe.contracts import Reason
from lenspipe.intervals import Interval, Intervals
from lenspipe.run.ledger import Ledger
from lenspipe.run_directory import ShardRecord, Stage
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


def run_stage(ledger: Ledger, spec: StageSpec[W], planned: Sequence[W]) -> bool:
    """Do all of `planned` that is not committed yet; every row ends in exactly one commit.

    False where nothing was left to do.
    """
    events = ledger.events
    total = sum(stop - start for start, stop in (work.interval for work in planned))
    done = Intervals(_told(ledger, spec.stage, total, len(planned)))
    queue = deque(remaining(planned, done))
    worked = bool(queue)
    if worked:
        options = replace(spec.options, workers=min(spec.options.workers, len(queue)))

        def in_flight(count: int) -> None:
            events.queue(spec.stage, len(queue), count)
            ledger.flush_if_due()

        pool_events = PoolEvents(
            retried=lambda detail, items: events.retried(
                spec.stage, detail, [item.interval for item in items]
            ),
            restarted=events.actor_restarted,
            in_flight=in_flight,
        )
        with Pool(spec.worker, options, pool_events, spec.feed) as pool, ledger.gathering():
            for outcome in pool.run(queue):
                _settle(ledger, spec, outcome, queue, pool)
    events.stage_finished(spec.stage)
    return worked


def _told(ledger: Ledger, stage: Stage, rows: int, shards: int) -> Iterator[Interval]:
    """What an earlier attempt committed, told to the listeners as it passes by."""
    ledger.events.stage_started(stage, rows, shards)
    done = 0
    for segment in ledger.run.segments(stage):
        ledger.events.resumed(stage, segment.records)
        for record in segment.records:
            done += record.stop - record.start
            yield record.start, record.stop
    ledger.events.stage_resumed(stage, rows, done)


def remaining(planned: Iterable[W], done: Intervals) -> Iterator[W]:
    """Work of which no row is committed; work of which some are is split until that is so."""
    done.refuse_overlaps()
    for work in planned:
        yield from _uncovered(work, done.starts, done.stops)


def _uncovered(work: W, starts: Sequence[int], stops: Sequence[int]) -> Iterator[W]:
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
    ledger: Ledger,
    spec: StageSpec[W],
    outcome: Outcome[W, ShardRecord],
    queue: deque[W],
    pool: Pool[W, ShardRecord],
) -> None:
    if outcome.value is None:
        pieces = outcome.item.split()
        if len(pieces) > 1:
            # Behind all others, so that what is well is done between two that hang.
            queue.extend(pieces)
            if outcome.reason is Reason.TIMED_OUT:
                pool.split_off_late(pieces)
            ledger.events.split(spec.stage, outcome.detail, outcome.item.interval)
            return
        reason = outcome.reason or Reason.WORKER_DIED
        record = ledger.patiently(lambda: spec.quarantine(outcome.item, reason, outcome.detail))
    else:
        record = outcome.value
    found = {"attempt": outcome.attempt, "node": outcome.node}
    ledger.commit(record.model_copy(update=found))
