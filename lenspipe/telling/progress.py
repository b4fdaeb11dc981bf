"""What a person or a log sees while a run goes on: bars on a terminal, JSON lines elsewhere."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any, Protocol, TextIO

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    TaskID,
    TaskProgressColumn,
    TextColumn,
    TimeElapsedColumn,
)
from rich.progress import Progress as Bars

from lenspipe.errors import one_line
from lenspipe.intervals import Interval
from lenspipe.redaction import redact
from lenspipe.run_directory import ShardRecord, Stage
from lenspipe.telling.stderr import forgiving
from lenspipe.telling.throughput import Throughput

# A run of a million shards must not write a million lines: commits are told together.
LINE_INTERVAL_S = 5.0


class Progress(Protocol):
    """One run's display. Commits of an earlier attempt are told by `stage_started` alone."""

    def run_started(self, name: str, output: str) -> None:
        """A run of the survey `name` begins, or is taken up again, in the directory `output`."""
        ...

    def run_finished(self, state: str, counts: Mapping[str, int]) -> None:
        """The run ended as `state`; counts: sources by what became of them."""
        ...

    def note(self, text: str) -> None:
        """What goes on in a phase that has no rows to count."""
        ...

    def stage_started(self, stage: Stage, total_rows: int, done_rows: int) -> None:
        """A stage of so many rows begins, of which an earlier attempt committed some."""
        ...

    def committed(self, record: ShardRecord, resumed: bool = False) -> None:
        """A shard was committed."""
        ...

    def retried(self, stage: Stage, message: str = "", shard: str = "") -> None:
        """A shard is tried again; message: why. shard: its rows, as `0-64`."""
        ...

    def split(self, stage: Stage, message: str = "", shard: str = "") -> None:
        """A shard that failed every time was divided."""
        ...

    def stage_finished(self, stage: Stage) -> None:
        """A stage's last shard was committed."""
        ...

    def message(self, text: str) -> None:
        """Something that a person should read."""
        ...

    def close(self) -> None:
        """The run ended, well or not: leave the terminal as it was."""
        ...


@contextmanager
def make_progress(stream: TextIO | None = None) -> Iterator[Progress]:
    """Bars where standard error is a terminal, JSON lines where it is not; closed at the end.

    What cannot be written (a log whose reader is gone, or whose disk is full) is dropped.
    """
    out = forgiving(stream or sys.stderr)
    progress = BarProgress(out) if out.isatty() else JsonProgress(out)
    try:
        yield progress
    finally:
        progress.close()


class SilentProgress:
    """Shows nothing: for measurements, and for programs that tell of the run themselves."""

    def run_started(self, name: str, output: str) -> None:
        """Nothing."""

    def run_finished(self, state: str, counts: Mapping[str, int]) -> None:
        """Nothing."""

    def note(self, text: str) -> None:
        """Nothing."""

    def stage_started(self, stage: Stage, total_rows: int, done_rows: int) -> None:
        """Nothing."""

    def committed(self, record: ShardRecord, resumed: bool = False) -> None:
        """Nothing."""

    def retried(self, stage: Stage, message: str = "", shard: str = "") -> None:
        """Nothing."""

    def split(self, stage: Stage, message: str = "", shard: str = "") -> None:
        """Nothing."""

    def stage_finished(self, stage: Stage) -> None:
        """Nothing."""

    def message(self, text: str) -> None:
        """Nothing."""

    def close(self) -> None:
        """Nothing."""


class BarProgress:
    """One bar per stage with rows, rate, time left and failures."""

    def __init__(self, stream: TextIO, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._tasks: dict[Stage, TaskID] = {}
        self._speed: dict[Stage, Throughput] = {}
        self._failed: dict[Stage, int] = {}
        self._bars = Bars(
            TextColumn("{task.description}"),
            BarColumn(),
            TaskProgressColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[told]}"),
            TimeElapsedColumn(),
            console=Console(file=stream),
        )

    def run_started(self, name: str, output: str) -> None:
        """See `Progress`."""
        self._print(f"{name}: running in {output}")

    def run_finished(self, state: str, counts: Mapping[str, int]) -> None:
        """See `Progress`."""
        told = ", ".join(f"{count:,} {outcome}" for outcome, count in counts.items())
        self._print(f"{state.replace('_', ' ')}{': ' if told else ''}{told}")

    def note(self, text: str) -> None:
        """See `Progress`."""
        self._print(f"{text} …")

    def stage_started(self, stage: Stage, total_rows: int, done_rows: int) -> None:
        """See `Progress`."""
        self._speed[stage] = Throughput(total_rows, done_rows, self._clock)
        self._failed[stage] = 0
        self._tasks[stage] = self._bars.add_task(
            stage, total=total_rows, completed=done_rows, told=""
        )
        self._bars.start()

    def committed(self, record: ShardRecord, resumed: bool = False) -> None:
        """See `Progress`."""
        if resumed:
            return
        speed = self._speed[record.stage]
        speed.add(record.rows_in)
        self._failed[record.stage] += record.rows_failed
        told = f"{speed.per_second():,.0f}/s, {_left(speed.seconds_left())} left"
        if self._failed[record.stage]:
            told += f", {self._failed[record.stage]:,} failed"
        self._bars.update(self._tasks[record.stage], completed=speed.done, told=told)

    def retried(self, stage: Stage, message: str = "", shard: str = "") -> None:
        """See `Progress`."""
        self._print(f"{stage}: {_called(shard)} is tried again: {message}")

    def split(self, stage: Stage, message: str = "", shard: str = "") -> None:
        """See `Progress`."""
        self._print(f"{stage}: {_called(shard)} is split: {message}")

    def stage_finished(self, stage: Stage) -> None:
        """See `Progress`."""
        speed = self._speed[stage]
        speed.finish()
        told = f"{speed.per_second():,.0f}/s"
        if self._failed[stage]:
            told += f", {self._failed[stage]:,} failed"
        self._bars.update(self._tasks[stage], told=told)

    def message(self, text: str) -> None:
        """See `Progress`."""
        self._print(text)

    def close(self) -> None:
        """See `Progress`."""
        self._bars.stop()

    def _print(self, text: str) -> None:
        self._bars.console.print(one_line(text), markup=False, highlight=False)


class JsonProgress:
    """One JSON object per line: `event`, `time` (UTC), `run` (the survey's name, once it is known),
    and what the event is about; `stage` and `shard` (its rows) where it is about one.

    Commits within `LINE_INTERVAL_S` of the last line of their stage are summed into the next one,
    whose `shard` is the last of them.
    """

    def __init__(self, stream: TextIO, clock: Callable[[], float] = time.monotonic) -> None:
        self._stream = stream
        self._clock = clock
        self._speed: dict[Stage, Throughput] = {}
        self._pending: dict[Stage, dict[str, int]] = {}
        self._told: dict[Stage, float] = {}
        self._last: dict[Stage, str] = {}
        self._run: dict[str, str] = {}

    def run_started(self, name: str, output: str) -> None:
        """See `Progress`."""
        self._run = {"run": name}
        self._line("run_started", name=name, output=output)

    def run_finished(self, state: str, counts: Mapping[str, int]) -> None:
        """See `Progress`."""
        self._line("run_finished", state=state, counts=dict(counts))

    def note(self, text: str) -> None:
        """See `Progress`."""
        self._line("note", text=text)

    def stage_started(self, stage: Stage, total_rows: int, done_rows: int) -> None:
        """See `Progress`."""
        self._speed[stage] = Throughput(total_rows, done_rows, self._clock)
        self._pending[stage] = {}
        self._told[stage] = float("-inf")
        self._line("stage_started", stage=stage, total_rows=total_rows, done_rows=done_rows)

    def committed(self, record: ShardRecord, resumed: bool = False) -> None:
        """See `Progress`."""
        if resumed:
            return
        self._speed[record.stage].add(record.rows_in)
        waiting = self._pending[record.stage]
        for key, number in (
            ("shards", 1),
            ("rows_in", record.rows_in),
            ("rows_out", record.rows_out),
            ("rows_failed", record.rows_failed),
        ):
            waiting[key] = waiting.get(key, 0) + number
        self._last[record.stage] = shard_name((record.start, record.stop))
        if self._clock() - self._told[record.stage] >= LINE_INTERVAL_S:
            self._flush(record.stage)

    def retried(self, stage: Stage, message: str = "", shard: str = "") -> None:
        """See `Progress`."""
        self._line("shard_retried", stage=stage, shard=shard, message=message)

    def split(self, stage: Stage, message: str = "", shard: str = "") -> None:
        """See `Progress`."""
        self._line("shard_split", stage=stage, shard=shard, message=message)

    def stage_finished(self, stage: Stage) -> None:
        """See `Progress`."""
        self._flush(stage)
        speed = self._speed[stage]
        speed.finish()
        rate = round(speed.per_second(), 1)
        self._line("stage_finished", stage=stage, done_rows=speed.done, rows_per_second=rate)

    def message(self, text: str) -> None:
        """See `Progress`."""
        self._line("message", text=text)

    def close(self) -> None:
        """See `Progress`."""
        for stage in self._pending:
            self._flush(stage)

    def _flush(self, stage: Stage) -> None:
        if not self._pending[stage]:
            return
        speed = self._speed[stage]
        left = speed.seconds_left()
        self._line(
            "shard_committed",
            stage=stage,
            shard=self._last[stage],
            **self._pending[stage],
            done_rows=speed.done,
            total_rows=speed.total,
            rows_per_second=round(speed.per_second(), 1),
            eta_seconds=None if left == float("inf") else round(left, 1),
        )
        self._pending[stage] = {}
        self._told[stage] = self._clock()

    def _line(self, event: str, **content: Any) -> None:
        when = datetime.now(UTC).isoformat(timespec="milliseconds")
        line = json.dumps({"event": event, "time": when, **self._run, **content})
        self._stream.write(redact(line) + "\n")
        self._stream.flush()


def shard_name(rows: Interval) -> str:
    """What lines call a shard: its rows, the second not among them."""
    return f"{rows[0]}-{rows[1]}"


def _called(shard: str) -> str:
    return f"shard {shard}" if shard else "a shard"


def _left(seconds: float) -> str:
    if seconds == float("inf"):
        return "?"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}h{minutes:02d}m" if hours else f"{minutes}m{rest:02d}s"
