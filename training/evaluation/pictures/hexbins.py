"""Completeness over two truth columns, in hexagons; the number of lenses is the size."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.collections import PolyCollection

from training.evaluation.pictures.style import COMPLETENESS_MAP, panels, write


def draw(path: Path, found: Sequence[Mapping[str, Any]]) -> None:
    """found: panels of `completeness.hexbins`. Hexagons of few lenses are drawn smaller: below
    five their completeness says little."""

    def on(figure: Any) -> None:
        columns = _columns(found)
        grid = panels(figure, -(-len(found) // columns), columns)
        for axes in grid[len(found) :]:
            axes.set_axis_off()
        for axes, panel in zip(grid, found, strict=False):
            image = _draw_panel(axes, panel)
        figure.colorbar(image, ax=grid, label="completeness", shrink=0.7, pad=0.02)

    write(path, (5.0 * _columns(found) + 0.8, 4.2 * -(-len(found) // _columns(found))), on)


def _columns(found: Sequence[Mapping[str, Any]]) -> int:
    return 3 if len(found) == 3 else min(2, len(found))


def _draw_panel(axes: Any, panel: Mapping[str, Any]) -> PolyCollection:
    x, y, n = (np.asarray(panel[key], float) for key in ("x", "y", "n"))
    left, right, bottom, top = panel["extent"]
    width = (right - left) / panel["grid"]
    # As matplotlib lays them: `grid` hexagons across, and in each of two lattices grid/sqrt(3) up.
    height = (top - bottom) / max(int(panel["grid"] / np.sqrt(3)), 1)
    corners = np.array([[0.5, 1], [0.5, -1], [0, -2], [-0.5, -1], [-0.5, 1], [0, 2]])
    cell = corners * [width, height / 6]
    share = np.minimum(0.45 + 0.55 * n / 5.0, 1.0)
    drawn = PolyCollection(
        [cell * s + [a, b] for a, b, s in zip(x, y, share, strict=True)],
        array=np.asarray(panel["completeness"], float),
        cmap=COMPLETENESS_MAP,
        clim=(0.0, 1.0),
        edgecolor="none",
    )
    axes.add_collection(drawn)
    axes.set_xlim(left - 0.7 * width, right + 0.7 * width)
    axes.set_ylim(bottom - 0.4 * height, top + 0.4 * height)
    axes.set(xlabel=panel["labels"][0], ylabel=panel["labels"][1])
    for axis, log in zip((axes.xaxis, axes.yaxis), panel["log"], strict=True):
        if log:
            _as_powers(axis)
    return drawn


def _as_powers(axis: Any) -> None:
    """Ticks of a column that is its logarithm, written as numbers."""
    low, high = axis.get_view_interval()
    steps = (1.0, 3.0) if high - low > 1.0 else (1.0, 2.0, 3.0, 5.0, 7.0)
    every = [
        s * 10.0**k for k in range(int(np.floor(low)) - 1, int(np.ceil(high)) + 1) for s in steps
    ]
    shown = [value for value in every if low <= np.log10(value) <= high]
    axis.set_ticks(np.log10(shown), [f"{value:g}" for value in shown])
