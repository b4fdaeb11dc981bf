"""What a training leaves to look at: one line per epoch in a CSV file, and TensorBoard's curves."""

from __future__ import annotations

import csv
import math
from collections.abc import Mapping
from pathlib import Path

CSV, EVENTS = "log.csv", "events"
Row = Mapping[str, float]


class Logs:
    """The logs of one training in its folder. An epoch that is done again replaces its line."""

    def __init__(self, folder: Path, epochs_done: int) -> None:
        # Costs seconds to import, and only trainings need it.
        from tensorboardX import SummaryWriter

        self._csv = folder / CSV
        self._events = SummaryWriter(str(folder / EVENTS), purge_step=epochs_done + 1)

    def epoch(self, row: Row) -> None:
        """Write an epoch's figures; `epoch` counts from 1."""
        rows = [kept for kept in read_log(self._csv) if int(kept["epoch"]) < row["epoch"]]
        write_log(self._csv, [*rows, {name: str(value) for name, value in row.items()}])
        for name, value in row.items():
            if name != "epoch" and math.isfinite(value):
                self._events.add_scalar(tag(name), value, int(row["epoch"]))
        self._events.flush()

    def close(self) -> None:
        """Nothing more comes."""
        self._events.close()


def tag(name: str) -> str:
    """Name of a curve: losses share a chart, figures of the validation set another."""
    chart = "loss" if name.endswith("loss") else "training"
    if name.startswith(("auroc", "tpr")):
        chart = "validation"
    return f"{chart}/{name}"


def read_log(path: Path) -> list[dict[str, str]]:
    """The lines of a log; none where there is no log."""
    if not path.exists():
        return []
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def write_log(path: Path, rows: list[dict[str, str]]) -> None:
    """The whole log, or the one before it."""
    aside = path.with_suffix(".part")
    with aside.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, fieldnames=list(rows[-1]))
        writer.writeheader()
        writer.writerows(rows)
    aside.replace(path)
