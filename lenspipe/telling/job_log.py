"""The log of a run on another machine, shown as the run itself would have shown it here."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import Any, TextIO

from pydantic import ValidationError

from lenspipe.errors import printable
from lenspipe.run_directory import ShardRecord
from lenspipe.telling.progress import BarProgress, JsonProgress, Progress
from lenspipe.telling.stderr import forgiving

# The last of the lines that Ray writes itself, before those of the command.
_RAYS_LAST = "Running entrypoint for job "


class JobLog:
    """Pieces of a log as they come: lines of events to `err`, as bars where it is a terminal, all
    others to `out`, in order; what Ray says before the run begins is a message.

    The last of the others is held back: where the run failed, it says why, and `close` returns it.
    """

    def __init__(self, out: TextIO, err: TextIO) -> None:
        self._out = out
        self._err = forgiving(err)
        self._bars = BarProgress(self._err, self._time) if self._err.isatty() else None
        self._told: Progress = self._bars or JsonProgress(self._err)
        self._now = 0.0
        self._begun = ""
        self._held: str | None = None
        self._has_begun = False

    def feed(self, text: str) -> None:
        """The next piece; may end inside a line."""
        *lines, self._begun = (self._begun + text).split("\n")
        for line in lines:
            self._line(line)

    def message(self, text: str) -> None:
        """What is to be told beside the log."""
        self._told.message(text)

    def close(self, failed: bool) -> str:
        """End the display; returns the line that says why the run failed, or prints it."""
        if self._begun:
            self._line(self._begun)
        self._begun = ""
        self._told.close()
        last, self._held = self._held or "", None
        if last and not failed:
            self._print(last)
        return last if failed else ""

    def _line(self, line: str) -> None:
        event = _event_of(line)
        if not self._has_begun:
            self._has_begun = line.startswith(_RAYS_LAST)
            if not self._has_begun:
                self.message(line)
        elif event is None:
            if self._held is not None:
                self._print(self._held)
            self._held = printable(line.expandtabs())
        elif self._bars is None:
            self._err.write(f"{printable(line)}\n")
            self._err.flush()
        else:
            self._show(event, self._bars)

    def _show(self, event: dict[str, Any], bars: BarProgress) -> None:
        try:
            self._now = datetime.fromisoformat(event["time"]).timestamp()
            replay(event, bars)
        except (KeyError, TypeError, ValueError, ValidationError):  # of another version
            bars.message(json.dumps(event))

    def _time(self) -> float:
        """The run's clock, by which speeds are right however fast its log comes in."""
        return self._now

    def _print(self, line: str) -> None:
        self._out.write(f"{line}\n")
        self._out.flush()


@contextmanager
def job_log(out: TextIO, err: TextIO) -> Iterator[JobLog]:
    """A log that is shown; what it holds back is printed where the block ends by an exception."""
    log = JobLog(out, err)
    try:
        yield log
    finally:
        log.close(failed=False)


def replay(event: dict[str, Any], progress: Progress) -> None:
    """Tell a display of an event that another run wrote as JSON. KeyError or ValueError where it is
    none of this version."""
    match event["event"]:
        case "run_started":
            progress.run_started(event["name"], event["output"])
        case "run_finished":
            progress.run_finished(event["state"], event["counts"])
        case "note":
            progress.note(event["text"])
        case "message":
            progress.message(event["text"])
        case "stage_started":
            progress.stage_started(event["stage"], event["total_rows"], event["done_rows"])
        case "shard_committed":
            counts = {key: event[key] for key in ("rows_in", "rows_out", "rows_failed")}
            progress.committed(ShardRecord(stage=event["stage"], start=0, stop=0, **counts))
        case "shard_retried":
            progress.retried(event["stage"], event["message"])
        case "shard_split":
            progress.split(event["stage"], event["message"])
        case "stage_finished":
            progress.stage_finished(event["stage"])
        case other:
            raise ValueError(f"an event {other!r}")


def _event_of(line: str) -> dict[str, Any] | None:
    if not line.startswith("{"):
        return None
    try:
        content = json.loads(line)
    except ValueError:
        return None
    return content if isinstance(content, dict) and "event" in content else None
