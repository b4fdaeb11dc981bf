"""What happens in a run, told once to the metrics and once to the progress display."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from lenspipe.intervals import Interval
from lenspipe.metrics import End, RunMetrics
from lenspipe.models.card import ScoreDistribution
from lenspipe.run_directory import ShardRecord, Stage
from lenspipe.telling.progress import Progress, shard_name


@dataclass(frozen=True)
class Events:
    """The listeners of one run."""

    metrics: RunMetrics
    progress: Progress

    def stage_started(self, stage: Stage, rows: int, shards: int) -> None:
        """A stage of so many rows and shards begins."""
        self.metrics.planned(stage, shards, rows)
        self.metrics.started(stage)

    def resumed(self, stage: Stage, records: Sequence[ShardRecord]) -> None:
        """Shards of the stage were committed by an earlier attempt."""
        self.metrics.resumed(stage, records)

    def stage_resumed(self, stage: Stage, rows: int, done: int) -> None:
        """All that an earlier attempt committed was told: `done` of so many rows."""
        self.metrics.stage_resumed(stage)
        self.progress.stage_started(stage, rows, done)

    def committed(self, record: ShardRecord) -> None:
        """A shard was committed."""
        self.metrics.committed(record)
        self.progress.committed(record)
        if record.halvings:
            self.message(
                f"a scorer's device ran out of memory: batches halved {record.halvings} times"
            )

    def retried(self, stage: Stage, detail: str, shards: Sequence[Interval] = ()) -> None:
        """Shards are tried again; none where it was a worker's start that failed."""
        self.metrics.retried(stage)
        self.progress.retried(stage, detail, ", ".join(map(shard_name, shards)))

    def split(self, stage: Stage, detail: str, shard: Interval) -> None:
        """A shard that failed every time is divided."""
        self.metrics.split(stage)
        self.progress.split(stage, detail, shard_name(shard))

    def compare_scores(self, stated: ScoreDistribution | None) -> None:
        """Scores that are committed from now on are held against these."""
        self.metrics.compare_scores(stated)

    def disk(self, place: str, free_bytes: int, size_bytes: int) -> None:
        """So much of a disk of the driver is free."""
        self.metrics.disk(place, free_bytes, size_bytes)

    def provider(self, name: str) -> None:
        """What the networks run on."""
        self.metrics.provider(name)

    def provider_refused(self, name: str) -> None:
        """The provider that was asked for is not to be had, and none is put in its place."""
        self.metrics.provider_refused(name)

    def actor_restarted(self) -> None:
        """An actor died and was replaced."""
        self.metrics.actor_restarted()

    def queue(self, stage: Stage, depth: int, running: int) -> None:
        """So many shards wait for a worker, and so many are with one."""
        self.metrics.queue(stage, depth, running)

    def stage_finished(self, stage: Stage) -> None:
        """A stage's last shard was committed."""
        self.metrics.finished(stage)
        self.progress.stage_finished(stage)

    def run_started(self, name: str, output: str) -> None:
        """A run begins, or is taken up again."""
        self.progress.run_started(name, output)

    def run_opened(self, created: str) -> None:
        """The run goes on from here; created: when it was begun for the first time."""
        self.metrics.began(created)

    def run_left(self, state: End) -> None:
        """The run directory is given up: the run is done, failed, or was stopped by a signal."""
        self.metrics.ended(state)

    def run_finished(self, state: str, counts: Mapping[str, int]) -> None:
        """The run ended; counts: sources by what became of them."""
        self.progress.run_finished(state, counts)

    def note(self, text: str) -> None:
        """What goes on in a phase that has no rows to count."""
        self.progress.note(text)

    def message(self, text: str) -> None:
        """Something that a person should read."""
        self.progress.message(text)
