"""When the shards of a stage ended, as the driver saw it."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

from lenspipe.metrics import RunMetrics
from lenspipe.run.shard_record import ShardRecord
from lenspipe.run_directory import Stage


@dataclass
class StageTimes:
    """Of one stage. started: it began, its workers were not there yet (s, monotonic). ready: the
    first shards were handed out. finished: the last was committed. ended: when each shard ended."""

    started: float
    ready: float | None = None
    finished: float = 0.0
    ended: list[float] = field(default_factory=list)
    records: list[ShardRecord] = field(default_factory=list)
    shards: int = 0

    @property
    def start_up_s(self) -> float:
        """Until the workers were there."""
        return 0.0 if self.ready is None else self.ready - self.started

    @property
    def seconds(self) -> float:
        """From the first shard handed out to the last committed."""
        return 0.0 if self.ready is None else self.finished - self.ready

    def slot_seconds(self, workers: int) -> float:
        """What one shard takes of a worker's time while all of them work; 0 where there was none.

        Each worker's first shard (what a process does once slows it) and the end, when some have
        nothing left, are left out where there are enough shards for that.
        """
        if self.ready is None or not self.ended:
            return 0.0
        count = len(self.ended)
        if self._has_middle(workers):
            first, last = workers, count - workers
            return workers * (self.ended[last - 1] - self.ended[first - 1]) / (last - first)
        return min(workers, count) * (self.ended[-1] - self.ready) / count

    def warm_up_seconds(self, workers: int) -> float:
        """How much longer the workers' first shards take; 0 where `slot_seconds` has them in it."""
        if self.ready is None or not self._has_middle(workers):
            return 0.0
        return max(0.0, self.ended[workers - 1] - self.ready - self.slot_seconds(workers))

    def _has_middle(self, workers: int) -> bool:
        """Whether there are enough shards beside the workers' first and the last ones."""
        return len(self.ended) - 2 * workers >= max(2, workers)


class StageClock(RunMetrics):
    """Metrics of a run that also keep the times of its stages."""

    def __init__(self, run_name: str) -> None:
        super().__init__(run_name)
        self.times: dict[Stage, StageTimes] = {}

    def started(self, stage: Stage) -> None:
        """A stage begins."""
        super().started(stage)
        self.times[stage] = StageTimes(time.monotonic())

    def queue(self, stage: Stage, depth: int, running: int | None = None) -> None:
        """The first call of a stage comes when its workers are ready, the others as shards end."""
        super().queue(stage, depth, running)
        times, now = self.times[stage], time.monotonic()
        left = depth + (running or 0)
        if times.ready is None:
            if not left:
                return
            times.ready, times.shards = now, left
        times.ended += [now] * (times.shards - left - len(times.ended))

    def committed(self, record: ShardRecord) -> None:
        """A shard was committed."""
        super().committed(record)
        self.times[record.stage].records.append(record)

    def finished(self, stage: Stage) -> None:
        """A stage's last shard was committed."""
        super().finished(stage)
        self.times[stage].finished = time.monotonic()
