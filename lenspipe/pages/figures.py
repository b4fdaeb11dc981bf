"""The report's pictures as PNG, each for light and for dark pages."""

from __future__ import annotations

import base64
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from io import BytesIO
from typing import Any

import matplotlib as mpl
import numpy as np
from jaxtyping import Float64, Int64, UInt8
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.image import imsave

from lenspipe.pages.sky_map import Counts, Field, tangent_wcs

_DPI = 160
_RASTER = 480


@dataclass(frozen=True)
class Theme:
    """Colours of one page mode."""

    text: str
    grid: str
    bar: str
    mark: str
    map: str


LIGHT = Theme(text="#3d4654", grid="#d9dee6", bar="#5b7fb4", mark="#c2410c", map="GnBu")
DARK = Theme(text="#b4bdca", grid="#343c49", bar="#7c9fd3", mark="#fb923c", map="GnBu_r")


@dataclass(frozen=True)
class Picture:
    """One picture as data URIs."""

    light: str
    dark: str


@dataclass(frozen=True)
class Histogram:
    """Counts of scores between `edges`."""

    edges: Float64[np.ndarray, " bins+1"]
    rows: Int64[np.ndarray, " bins"]


@dataclass(frozen=True)
class Sky:
    """What a sky map shows. ra, dec: of the candidates (deg)."""

    field: Field
    counts: Counts
    ra: Float64[np.ndarray, " k"]
    dec: Float64[np.ndarray, " k"]


def data_uri(png: bytes) -> str:
    """A PNG as text that a page can hold."""
    return "data:image/png;base64," + base64.b64encode(png).decode()


def stamp_png(rgb: UInt8[np.ndarray, "y x 3"]) -> str:
    """One stamp as a data URI."""
    sink = BytesIO()
    imsave(sink, rgb, format="png")
    return data_uri(sink.getvalue())


def score_picture(histogram: Histogram, marks: Mapping[str, float]) -> Picture:
    """Histogram of the ensemble's score, logarithmic. marks: text -> threshold to be shown."""

    def draw(figure: Figure, theme: Theme) -> None:
        axes = figure.add_subplot()
        axes.stairs(histogram.rows, histogram.edges, fill=True, color=theme.bar)
        axes.set_yscale("log")
        axes.set_ylim(bottom=0.7)
        axes.set_xlim(histogram.edges[0], histogram.edges[-1])
        axes.set_xlabel("score (logit of the ensemble)")
        axes.set_ylabel("sources")
        axes.grid(axis="y", linewidth=0.6)
        axes.set_axisbelow(True)
        axes.spines[["top", "right"]].set_visible(False)
        for line, (text, threshold) in enumerate(marks.items()):
            _threshold_line(axes, text, threshold, line, theme)

    return _picture(draw, (6.4, 5.0))


def sky_picture(sky: Sky) -> Picture:
    """Scored sources by HEALPix cell, candidates as rings; a field or the whole sky."""
    if sky.field.all_sky:
        return _picture(lambda figure, theme: _draw_all_sky(figure, theme, sky), (6.4, 4.0))
    return _picture(lambda figure, theme: _draw_field(figure, theme, sky), (6.4, 5.0))


def _threshold_line(axes: Axes, text: str, threshold: float, line: int, theme: Theme) -> None:
    """line: of the text, counted upwards, so that near thresholds do not overprint each other."""
    low, high = axes.get_xlim()
    edge = 0.02 * (high - low)
    axes.set_xlim(min(low, threshold - edge), max(high, threshold + edge))
    axes.axvline(threshold, color=theme.mark, linewidth=1.4)
    left = threshold > (low + high) / 2
    axes.annotate(
        text,
        (threshold, 1.02 + 0.05 * line),
        xycoords=("data", "axes fraction"),
        ha="right" if left else "left",
        va="bottom",
        color=theme.mark,
    )


def _draw_field(figure: Figure, theme: Theme, sky: Sky) -> None:
    wcs = tangent_wcs(sky.field, _RASTER)
    axes = figure.add_subplot(projection=wcs)
    y, x = np.mgrid[0:_RASTER, 0:_RASTER]
    cells = sky.counts.at(*wcs.pixel_to_world_values(x.astype(float), y.astype(float)))
    image = axes.imshow(cells, cmap=theme.map, origin="lower", interpolation="nearest")
    # World to pixel by hand: the axes' own transform may place points before the axes exist.
    if len(sky.ra):
        points = wcs.world_to_pixel_values(sky.ra, sky.dec)
        axes.scatter(*points, s=26, facecolors="none", edgecolors=theme.mark, linewidths=1.0)
    for index, label in enumerate(("right ascension", "declination")):
        axes.coords[index].set_axislabel(label)
        axes.coords[index].set_ticks(number=4)
        axes.coords[index].set_ticks_position("bl"[index])
        axes.coords[index].set_major_formatter(_degrees(sky.field))
    _frame(axes, cells)
    axes.coords.grid(color=theme.grid, linewidth=0.5)
    _colour_bar(figure, axes, image)


def _draw_all_sky(figure: Figure, theme: Theme, sky: Sky) -> None:
    axes = figure.add_subplot(projection="mollweide")
    offsets = np.linspace(-180, 180, 2 * _RASTER + 1)  # degrees west of RA 0: east is to the left
    rows = np.linspace(-90, 90, _RASTER + 1)
    centre = (offsets[:-1] + offsets[1:]) / 2, (rows[:-1] + rows[1:]) / 2
    west, up = np.meshgrid(*centre)
    image = axes.pcolormesh(
        np.radians(offsets), np.radians(rows), sky.counts.at(-west % 360, up), cmap=theme.map
    )
    if len(sky.ra):
        west_of = np.radians((180 - sky.ra) % 360 - 180)
        axes.scatter(
            west_of,
            np.radians(sky.dec),
            s=10,
            facecolors="none",
            edgecolors=theme.mark,
            linewidths=0.7,
        )
    axes.grid(color=theme.grid, linewidth=0.5)
    axes.set_xticks(np.radians(np.arange(-120, 121, 60)))
    axes.set_xticklabels([f"{(-at) % 360}°" for at in range(-120, 121, 60)])
    axes.set_yticks(np.radians(np.arange(-60, 61, 30)))
    _colour_bar(figure, axes, image)


def _degrees(field: Field) -> str:
    decimals = int(np.clip(np.ceil(1 - np.log10(max(field.radius, 1e-3))), 0, 4))
    return "d." + "d" * decimals if decimals else "d"


def _frame(axes: Axes, cells: Float64[np.ndarray, "y x"]) -> None:
    """Show the part of the raster that holds sources, and a little more."""
    margin = 0.03 * _RASTER
    for along, limit in ((0, axes.set_xlim), (1, axes.set_ylim)):
        held = np.flatnonzero(np.isfinite(cells).any(axis=along))
        limit(held[0] - margin, held[-1] + margin)


def _colour_bar(figure: Figure, axes: Axes, image: mpl.cm.ScalarMappable) -> None:
    bar = figure.colorbar(image, ax=axes, shrink=0.75, pad=0.03)
    bar.outline.set_visible(False)
    bar.set_label("scored sources per cell")


def _picture(draw: Callable[[Figure, Theme], None], size: tuple[float, float]) -> Picture:
    return Picture(light=_render(draw, size, LIGHT), dark=_render(draw, size, DARK))


def _render(draw: Callable[[Figure, Theme], None], size: tuple[float, float], theme: Theme) -> str:
    settings: dict[Any, Any] = {
        "text.color": theme.text,
        "axes.labelcolor": theme.text,
        "axes.edgecolor": theme.grid,
        "xtick.color": theme.text,
        "ytick.color": theme.text,
        "grid.color": theme.grid,
        "axes.facecolor": "none",
        "font.size": 9.5,
    }
    with mpl.rc_context(settings):
        figure = Figure(figsize=size, dpi=_DPI, layout="constrained")
        FigureCanvasAgg(figure)
        draw(figure, theme)
        sink = BytesIO()
        figure.savefig(sink, format="png", transparent=True)
    return data_uri(sink.getvalue())
