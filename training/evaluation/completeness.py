"""Completeness against what a lens is like: bins of one truth column, hexagons of two.

As van Lohuizen (2022), figures 5.9 to 5.14 and 7.22: true-positive rate over Einstein radius and
source brightness, and against the part of the stamp on which the lensed source stands above twice
the noise: "image area with regards to the whole image area" (section 5.3), not of the source's own.
That part is of stamps of one size; the same area in arcsec² is of any.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from jaxtyping import Bool, Float

from lenspipe.models.card import Metric
from training.data import Examples
from training.metrics import rate

GRID = 14
_FEWEST = 2  # different values of a column, for an axis to be one


@dataclass(frozen=True)
class Axis:
    """A truth column as an axis. bands: stands for `{band}` in `column`, the first that is there.

    edges: of the bins of `by_truth`. whole: the column counts, and a bin is called by its number.
    """

    column: str
    label: str
    edges: tuple[float, ...]
    bands: tuple[str, ...] = ()
    log: bool = False
    whole: bool = False

    def names(self) -> Iterator[str]:
        """The columns that may hold it, best first."""
        yield from ([self.column.format(band=b) for b in self.bands] or [self.column])

    def found(self, test: Examples) -> str | None:
        """The column of a test set that holds it; None where there is none with lenses in it."""
        for name in self.names():
            values = test.truth.get(name)
            if values is not None and np.isfinite(values[test.positive]).any():
                return name
        return None


THETA_E = Axis("theta_e_arcsec", "Einstein radius (arcsec)", (0.0, 0.75, 1.0, 1.5, 2.0, 3.0, 10.0))
ARC_SNR = Axis(
    "arc_snr_{band}",
    "S/N of the arcs, {band}",
    (0.0, 10.0, 20.0, 40.0, 80.0, 160.0, 1e9),
    bands=("g", "r", "i", "VIS", "F160W"),
    log=True,
)
SOURCE_MAG = Axis(
    "source_mag_{band}",
    "source, unlensed ({band}, AB mag)",
    (0.0, 22.0, 23.0, 24.0, 25.0, 26.0, 40.0),
    bands=("r", "g", "i", "VIS", "F160W"),
)
CONTRAST = Axis(
    "source_lens_contrast_{band}",
    "source / lens peak brightness, {band}",
    (0.0, 0.01, 0.03, 0.1, 0.3, 1.0, 1e9),
    bands=("g", "r", "i", "VIS", "F160W"),
    log=True,
)
AREA_FRACTION = Axis(
    "arc_area_2sigma_fraction",
    "part of the stamp where arcs exceed twice the noise",
    (0.0, 0.01, 0.02, 0.04, 0.06, 0.1, 0.15, 0.25, 1.01),
)
AREA = Axis(
    "arc_area_arcsec2",
    "area where arcs exceed twice the noise (arcsec²)",
    (0.0, 1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 1e9),
)
IMAGES = Axis("n_images", "images of the source", (1.0, 2.0, 3.0, 4.0, 5.0, 100.0), whole=True)
MAGNIFICATION = Axis("magnification", "magnification", (0.0, 2.0, 4.0, 8.0, 16.0, 1e9), log=True)
AXES = (THETA_E, ARC_SNR, SOURCE_MAG, CONTRAST, AREA_FRACTION, AREA, IMAGES, MAGNIFICATION)
PANELS = (
    (THETA_E, SOURCE_MAG),
    (THETA_E, ARC_SNR),
    (SOURCE_MAG, ARC_SNR),
    (THETA_E, CONTRAST),
)


def by_truth(above: Bool[np.ndarray, " n"], test: Examples) -> dict[str, dict[str, Metric]]:
    """Completeness of the lenses in the bins of every axis that the set knows."""
    lens = test.positive
    columns = ((axis, axis.found(test)) for axis in AXES)
    return {
        name: in_bins(above[lens], test.truth[name][lens], axis.edges, test.rests_on, axis.whole)
        for axis, name in columns
        if name is not None
    }


def in_bins(
    above: Bool[np.ndarray, " n"],
    truth: Float[np.ndarray, " n"],
    edges: Sequence[float],
    rests_on: str = "",
    whole: bool = False,
) -> dict[str, Metric]:
    """Completeness of the lenses in each bin [low, high) that holds any."""
    found = {}
    for low, high in pairwise(edges):
        inside = (truth >= low) & (truth < high)
        if inside.any():
            name = _number(low, high) if whole else f"{low:g} to {high:g}"
            found[name] = rate(above[inside], True, rests_on)
    return found


def _number(low: float, high: float) -> str:
    """A bin of whole numbers: the one in it, or the first of several."""
    return f"{low:g}" if high - low == 1 else f"{low:g} or more"


def hexbins(
    above: Bool[np.ndarray, " n"], test: Examples, grid: int = GRID
) -> list[dict[str, Any]]:
    """The panels whose columns the test set holds: per hexagon its middle, `n` and `completeness`.

    `log`: axes of which the middle is the logarithm to base 10.
    """
    panels = (_panel(above, test, axes, grid) for axes in PANELS)
    return [panel for panel in panels if panel is not None]


def _panel(
    above: Bool[np.ndarray, " n"], test: Examples, axes: tuple[Axis, Axis], grid: int
) -> dict[str, Any] | None:
    names = [name for axis in axes if (name := axis.found(test)) is not None]
    if len(names) < len(axes):
        return None
    lens = test.positive
    x, y = (_scaled(a, test.truth[name][lens]) for a, name in zip(axes, names, strict=True))
    use = np.isfinite(x) & np.isfinite(y)
    x, y = x[use], y[use]
    if min(len(np.unique(x)), len(np.unique(y))) < _FEWEST:
        return None
    return {
        "columns": names,
        "labels": [_label(axis, name) for axis, name in zip(axes, names, strict=True)],
        "log": [axis.log for axis in axes],
        "grid": grid,
        "extent": [float(end) for v in (x, y) for end in (v.min(), v.max())],
        **hexagons(x, y, above[lens][use], grid),
    }


def hexagons(
    x: Float[np.ndarray, " n"],
    y: Float[np.ndarray, " n"],
    above: Bool[np.ndarray, " n"],
    grid: int = GRID,
) -> dict[str, list[float]]:
    """Hexagons that hold lenses: middle `x`, `y`, `n` and the part of them that is `above`."""
    from matplotlib.figure import Figure

    axes = Figure().subplots()
    counted = axes.hexbin(x, y, gridsize=grid, mincnt=1)
    averaged = axes.hexbin(x, y, C=above.astype(float), gridsize=grid, mincnt=1)
    places = np.asarray(counted.get_offsets(), np.float64)
    return {
        "x": places[:, 0].tolist(),
        "y": places[:, 1].tolist(),
        "n": np.asarray(counted.get_array(), np.int64).tolist(),
        "completeness": np.asarray(averaged.get_array(), np.float64).tolist(),
    }


def _scaled(axis: Axis, values: Float[np.ndarray, " n"]) -> Float[np.ndarray, " n"]:
    if not axis.log:
        return np.asarray(values, np.float64)
    return np.log10(np.where(values > 0, values, np.nan), dtype=np.float64)


def _label(axis: Axis, name: str) -> str:
    return axis.label.format(band=name.rsplit("_", 1)[-1])
