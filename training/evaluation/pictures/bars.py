"""Rates with their intervals as bars: completeness by bins of the truth, confusion by kind."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from lenspipe.models.card import Metric
from training.evaluation.completeness import AXES, Axis
from training.evaluation.pictures.style import COLOURS, panels, write


def draw_completeness(path: Path, found: Mapping[str, Mapping[str, Metric]]) -> None:
    """found: column -> bin -> completeness, of `completeness.by_truth`."""

    def on(figure: Any) -> None:
        columns = min(2, len(found))
        grid = panels(figure, -(-len(found) // columns), columns)
        for axes in grid[len(found) :]:
            axes.set_axis_off()
        for axes, (column, bins) in zip(grid, found.items(), strict=False):
            _bars(axes, [_shorter(b) for b in bins], list(bins.values()))
            axes.set(xlabel=_title(column), ylim=(0.0, 1.12), ylabel="completeness")

    write(path, (5.2 * min(2, len(found)), 3.3 * -(-len(found) // 2)), on)


def draw_confusion(path: Path, kinds: Mapping[str, Mapping[str, Any]], title: str) -> None:
    """kinds: of `confusion.by_kind`; non-lenses only, the rate on a logarithmic axis."""
    others = {kind: told for kind, told in kinds.items() if not told["is_lens"]}

    def on(figure: Any) -> None:
        axes = figure.subplots()
        place = np.arange(len(others))[::-1]
        rates = np.asarray([told["rate"] for told in others.values()])
        ends = np.asarray([told["interval"] for told in others.values()]).T
        lowest = 0.3 * min(1.0 / told["n"] for told in others.values())
        axes.errorbar(
            np.maximum(rates, lowest),
            place,
            xerr=[np.maximum(rates - ends[0], 0), ends[1] - rates],
            fmt="o",
            color=COLOURS[1],
            capsize=3,
        )
        axes.set_yticks(
            place, [f"{kind} ({told['passing']} of {told['n']})" for kind, told in others.items()]
        )
        axes.set(xscale="log", xlim=(lowest, 1.0), xlabel=title, ylim=(-0.6, len(others) - 0.4))

    write(path, (7.2, 1.3 + 0.36 * len(others)), on)


def _bars(axes: Any, names: Sequence[str], rates: Sequence[Metric]) -> None:
    values = np.asarray([m.value for m in rates])
    ends = np.asarray([m.interval for m in rates]).T
    place = np.arange(len(values))
    axes.bar(place, values, color=COLOURS[0], alpha=0.75, width=0.8)
    axes.errorbar(place, values, np.abs(ends - values), fmt="none", ecolor="#111", capsize=2.5)
    for k, m in enumerate(rates):
        axes.annotate(f"{m.n_positives}", (k, 1.04), ha="center", fontsize=8.5, color="#444")
    # Slanted, for eight bins of one panel have names that are wider than their bars.
    slanted: dict[str, Any] = {"rotation": 30, "ha": "right", "rotation_mode": "anchor"}
    axes.set_xticks(place, names, fontsize=9, **slanted)
    axes.grid(axis="x", visible=False)


def _shorter(name: str) -> str:
    if " to " not in name:
        return f"≥ {name.removesuffix(' or more')}" if name.endswith(" or more") else name
    low, high = name.split(" to ")
    if float(low) == 0:
        return f"< {high}"
    return f"≥ {low}" if float(high) >= 1e8 else f"{low}–{high}"


def _title(column: str) -> str:
    axis = next((axis for axis in AXES if column in axis.names()), Axis(column, column, ()))
    return axis.label.format(band=column.rsplit("_", 1)[-1])
