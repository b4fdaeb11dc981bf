"""What all pictures share: size, colours, how they are written."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

COLOURS = ("#2563a8", "#c2410c", "#2f855a", "#8250a0", "#a16207", "#0f766e", "#9d174d", "#475569")
GREY = "#6b7280"
COMPLETENESS_MAP = "viridis"
_SETTINGS: dict[Any, Any] = {
    "font.size": 10.5,
    "axes.grid": True,
    "grid.color": "#dfe3e8",
    "grid.linewidth": 0.7,
    "axes.axisbelow": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "legend.frameon": False,
    "legend.fontsize": 9.5,
}


def write(path: Path, size: tuple[float, float], draw: Callable[[Figure], None]) -> None:
    """Draw a figure of `size` (inches) as a PNG."""
    with mpl.rc_context(_SETTINGS):
        figure = Figure(figsize=size, dpi=150, layout="constrained")
        draw(figure)
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path)


def panels(figure: Figure, rows: int, columns: int) -> Sequence[Axes]:
    """A grid of axes as a flat list."""
    return list(figure.subplots(rows, columns, squeeze=False).flat)
