"""Where a stamp lies: pixel windows, tiles on the sky, resampling. Pure functions on arrays.

A source falls on the pixel whose centre is nearest to its position; halves go up, so the pixel of
x = 10.5 is 11 (coordinates count from 0 at the centre of the first pixel). In a stamp of side n
that pixel has the index n // 2 on both axes: the middle one of an odd side, the first of the
upper half of an even side. A stamp that was cut elsewhere is taken to follow the same rule.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from jaxtyping import Float32, Float64, Int64

SCALE_TOLERANCE = 0.01


def stamp_origin(position: Float64[np.ndarray, " n"], side: int) -> Int64[np.ndarray, " n"]:
    """Index of a stamp's first pixel on one axis, for sources at `position` (pixels, from 0)."""
    return np.asarray(np.floor(position + 0.5).astype(np.int64) - side // 2)


def crop_origin(have: int, want: int) -> int:
    """First pixel to keep on one axis so that the source's pixel stays the source's pixel.

    Negative, or leaving fewer than `want` pixels, where the stamp is too small.
    """
    return have // 2 - want // 2


def same_scale(a_arcsec: float, b_arcsec: float) -> bool:
    """Whether two pixel scales differ by less than the tolerance of 1%."""
    return abs(a_arcsec / b_arcsec - 1.0) <= SCALE_TOLERANCE


@dataclass(frozen=True)
class Window:
    """What must be read of a band to serve one input. side: pixels read per axis;
    size: pixels of the model; ratio: model pixels over native pixels, 1.0 without resampling."""

    side: int
    size: int
    ratio: float = 1.0

    @property
    def resampled(self) -> bool:
        """Whether the pixels read are interpolated."""
        return self.ratio != 1.0


def window(size: int, model_arcsec: float, native_arcsec: float) -> Window:
    """The window of a stamp of `size` pixels of `model_arcsec` in pixels of `native_arcsec`."""
    if same_scale(native_arcsec, model_arcsec):
        return Window(size, size)
    ratio = model_arcsec / native_arcsec
    before = (size // 2 + 0.5) * ratio - 0.5
    after = (size - size // 2 - 0.5) * ratio - 0.5
    half = max(0, math.ceil(max(before, after) - 1e-9))
    return Window(2 * half + 1, size, ratio)


def overlap_weights(win: Window) -> Float64[np.ndarray, "size side"]:
    """Fraction of each native pixel that falls into each model pixel, on one axis.

    The centres of the two source pixels coincide. Applied on both axes this hands each native
    pixel's flux to the model pixels that cover it, in proportion to the area (the drop of unit
    size of Fruchter & Hook 2002, PASP 114, 144, for axes that are parallel): flux is conserved.
    """
    edges = (np.arange(win.size + 1) - win.size // 2 - 0.5) * win.ratio + win.side // 2 + 0.5
    low, high = edges[:-1, None], edges[1:, None]
    pixels = np.arange(win.side)[None, :]
    return np.asarray(np.clip(np.minimum(high, pixels + 1) - np.maximum(low, pixels), 0.0, 1.0))


def resample(
    pixels: Float32[np.ndarray, "n side side"], win: Window
) -> Float32[np.ndarray, "n size size"]:
    """Flux on the model's pixels. Pixels that are not finite carry no weight; a model pixel with
    less than half of its area good becomes NaN, and others are scaled up to the full area."""
    weights = overlap_weights(win).astype(np.float32)
    good = np.isfinite(pixels)
    whole = good.all(axis=(1, 2))
    flux = np.where(good, pixels, np.float32(0.0))
    out: Any = weights @ flux @ weights.T
    if not whole.all():
        area = weights @ good[~whole].astype(np.float32) @ weights.T / np.float32(win.ratio**2)
        with np.errstate(divide="ignore", invalid="ignore"):
            out[~whole] = np.where(area >= 0.5, out[~whole] / area, np.float32(np.nan))
    return np.asarray(out, dtype=np.float32)


def interior_distance(
    x: Float64[np.ndarray, " n"], y: Float64[np.ndarray, " n"], shape: tuple[int, int]
) -> Float64[np.ndarray, " n"]:
    """Pixels between a position and the nearest edge of an image (y, x); negative outside."""
    height, width = shape
    across = np.minimum(x + 0.5, width - 0.5 - x)
    return np.minimum(across, np.minimum(y + 0.5, height - 0.5 - y))


def separation_deg(
    ra_deg: Float64[np.ndarray, " n"], dec_deg: Float64[np.ndarray, " n"], ra0: float, dec0: float
) -> Float64[np.ndarray, " n"]:
    """Angle to one point by the haversine formula, exact for small angles too."""
    d_ra, d_dec = np.radians(ra_deg - ra0), np.radians(dec_deg - dec0)
    cosines = np.cos(np.radians(dec_deg)) * math.cos(math.radians(dec0))
    half = np.sin(d_dec / 2) ** 2 + cosines * np.sin(d_ra / 2) ** 2
    return np.asarray(np.degrees(2 * np.arcsin(np.sqrt(np.clip(half, 0.0, 1.0)))))


_RA_CELLS = 1 << 20


class SkyBuckets:
    """Sources sorted into cells of about `cell_deg`, so that those near a point are found without
    a look at all of them. Rows with a position that is not finite are in no cell."""

    def __init__(
        self,
        ra_deg: Float64[np.ndarray, " n"],
        dec_deg: Float64[np.ndarray, " n"],
        cell_deg: float,
    ) -> None:
        self._cell = min(max(cell_deg, 1e-3), 180.0)
        valid = np.isfinite(ra_deg) & (np.abs(dec_deg) <= 90.0)
        index = np.flatnonzero(valid)
        ra, dec = ra_deg[index] % 360.0, dec_deg[index]
        strips = np.floor((dec + 90.0) / self._cell).astype(np.int64)
        keys = strips * _RA_CELLS + np.floor(ra / self._width(strips)).astype(np.int64)
        order = np.argsort(keys, kind="stable")
        self._keys, self._index = keys[order], index[order]

    def _width(self, strips: Any) -> Any:
        """Width in right ascension (deg) of the cells of a strip of declination."""
        middle = (np.asarray(strips, dtype=np.float64) + 0.5) * self._cell - 90.0
        return self._cell / np.maximum(np.cos(np.radians(np.clip(middle, -90.0, 90.0))), 1e-2)

    def near(self, ra: float, dec: float, radius_deg: float) -> Int64[np.ndarray, " k"]:
        """Indices of all sources within `radius_deg` of a point, and of some beyond."""
        first = math.floor((max(dec - radius_deg, -90.0) + 90.0) / self._cell)
        last = math.floor((min(dec + radius_deg, 90.0) + 90.0) / self._cell)
        half = _ra_half_width(dec, radius_deg)
        parts = [
            self._index[slice(*np.searchsorted(self._keys, [low, high + 1]))]
            for strip in range(first, last + 1)
            for low, high in self._key_ranges(strip, ra % 360.0, half)
        ]
        return np.concatenate(parts) if parts else np.empty(0, np.int64)

    def _key_ranges(self, strip: int, ra: float, half: float) -> Iterator[tuple[int, int]]:
        width, base = float(self._width(strip)), strip * _RA_CELLS
        low, high = ra - half, ra + half
        if high - low >= 360.0 - 2 * width:
            yield base, base + _RA_CELLS - 1
            return
        top = math.floor(360.0 / width)
        if low < 0.0:
            yield base + math.floor((low + 360.0) / width), base + top
        if high >= 360.0:
            yield base, base + math.floor((high - 360.0) / width)
        yield base + math.floor(max(low, 0.0) / width), base + math.floor(min(high, 360.0) / width)


def _ra_half_width(dec: float, radius_deg: float) -> float:
    """Half the range of right ascension of a circle on the sphere, 180 where a pole is inside."""
    if abs(dec) + radius_deg >= 90.0:
        return 180.0
    ratio = math.sin(math.radians(radius_deg)) / math.cos(math.radians(dec))
    return math.degrees(math.asin(min(1.0, ratio))) * (1 + 1e-9) + 1e-9


def group_rows(
    keys: Int64[np.ndarray, " n"],
) -> Iterator[tuple[int, Int64[np.ndarray, " k"]]]:
    """Each key that is not negative with the rows that have it, in the order of keys."""
    order = np.argsort(keys, kind="stable")
    order = order[keys[order] >= 0]
    found, starts = np.unique(keys[order], return_index=True)
    stops = [*starts.tolist()[1:], len(order)][: len(starts)]
    for key, start, stop in zip(found.tolist(), starts.tolist(), stops, strict=True):
        yield key, order[start:stop]


def as_slice(index: Int64[np.ndarray, " k"]) -> Any:
    """The same positions as a slice where they follow one another, which numpy need not copy."""
    if len(index) and index[-1] - index[0] == len(index) - 1 and bool(np.all(np.diff(index) == 1)):
        return slice(int(index[0]), int(index[-1]) + 1)
    return index


def consecutive_runs(positions: Int64[np.ndarray, " k"]) -> Iterator[tuple[int, int]]:
    """Bounds [start, stop) of the stretches of positions that follow one another."""
    breaks = np.flatnonzero(np.diff(positions) != 1) + 1
    edges = [0, *breaks.tolist(), len(positions)]
    yield from (pair for pair in pairwise(edges) if pair[0] < pair[1])


# Stamps that are gathered at once: few enough to be still in the cache when they are cast.
_GATHERED = 256


def cut_stamps(
    strip: np.ndarray[Any, Any],
    x0: Int64[np.ndarray, " k"],
    y0: Int64[np.ndarray, " k"],
    out: np.ndarray[Any, Any],
    rows: Int64[np.ndarray, " k"],
) -> None:
    """Copy the parts of stamps with origins (x0, y0) that lie on `strip` into `out[rows]`.

    Pixels of `out` outside the strip are left alone.
    """
    side = out.shape[1]
    height, width = strip.shape
    inside = (x0 >= 0) & (y0 >= 0) & (x0 + side <= width) & (y0 + side <= height)
    whole = np.flatnonzero(inside)
    for start in range(0, len(whole), _GATHERED):
        some = whole[start : start + _GATHERED]
        out[rows[some]] = gather(strip, x0[some], y0[some], side)
    for index in np.flatnonzero(~inside).tolist():
        x, y, row = int(x0[index]), int(y0[index]), int(rows[index])
        left, top = max(0, -x), max(0, -y)
        right, bottom = min(side, width - x), min(side, height - y)
        if left < right and top < bottom:
            out[row, top:bottom, left:right] = strip[y + top : y + bottom, x + left : x + right]


def gather(
    strip: np.ndarray[Any, Any],
    x0: Int64[np.ndarray, " k"],
    y0: Int64[np.ndarray, " k"],
    side: int,
) -> np.ndarray[Any, Any]:
    """Stamps that lie wholly on an image, (k, side, side) of its own type.

    Each row of a stamp is one item of `side` pixels for numpy: twice the rate of a loop of slices,
    three times that of a fancy index over pixels.
    """
    strip = np.ascontiguousarray(strip)
    item = strip.itemsize
    rows_of_stamps: np.ndarray[Any, Any] = np.ndarray(
        (strip.size - side + 1,), f"V{side * item}", strip, 0, (item,)
    )
    first = (y0[:, None] + np.arange(side)) * strip.shape[1] + x0[:, None]
    return np.asarray(rows_of_stamps[first].view(strip.dtype).reshape(len(x0), side, side))
