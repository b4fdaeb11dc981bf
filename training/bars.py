"""Bars on a terminal while a training goes on; elsewhere nothing: the log has a line an epoch."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TextIO

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from lenspipe.telling.stderr import forgiving


class Bars:
    """Two bars: epochs, with the last one's figures, and the steps of the epoch that runs."""

    def __init__(
        self, name: str, epochs: int, done: int, steps: int, stream: TextIO, leads: bool
    ) -> None:
        self.on_screen = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[told]}"),
            console=Console(file=stream),
            disable=not (leads and stream.isatty()),
        )
        self._epochs = self.on_screen.add_task(
            f"{name} epochs", total=epochs, completed=done, told=""
        )
        self._steps = self.on_screen.add_task("steps", total=steps, told="")

    def begin_epoch(self) -> None:
        """The steps start anew."""
        self.on_screen.reset(self._steps)

    def step(self) -> None:
        """A step is done."""
        self.on_screen.advance(self._steps)

    def end_epoch(self, told: str) -> None:
        """An epoch is done; told: its figures in a few words."""
        self.on_screen.update(self._epochs, advance=1, told=told)


@contextmanager
def shown(
    name: str,
    epochs: int,
    done: int,
    steps: int,
    leads: bool = True,
    stream: TextIO | None = None,
) -> Iterator[Bars]:
    """Bars on `stream` (default: standard error) until the context is left. leads: whether this
    process is the one of a group that shows them."""
    bars = Bars(name, epochs, done, steps, forgiving(stream or sys.stderr), leads)
    with bars.on_screen:
        yield bars
