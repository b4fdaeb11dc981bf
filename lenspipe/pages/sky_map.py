"""Where on the sky a run's sources are: HEALPix counts, drawn for the whole sky or for a field."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from astropy.wcs import WCS
from jaxtyping import Float64, Int64

from lenspipe.catalogue.places import HEALPIX, add_counts
from lenspipe.healpix import ORDER, healpix_29

ALL_SKY_RADIUS_DEG = 30.0  # a larger extent is drawn on the whole sky
_ALL_SKY_ORDER = 6  # cells of 0.9°: smaller ones would not be seen
_ORDER_0_SIDE_DEG = 58.6  # side of a HEALPix cell of order 0; halves with each order
_ROWS_PER_CELL = 4  # fewer would draw single sources
_CELLS_ACROSS = (6, 72)
_MARGIN = 1.08


@dataclass(frozen=True)
class Field:
    """A cap that holds all sources: centre and radius (deg)."""

    ra: float
    dec: float
    radius: float

    @property
    def all_sky(self) -> bool:
        """Whether it is too large to be drawn on a plane."""
        return self.radius > ALL_SKY_RADIUS_DEG


@dataclass(frozen=True)
class Counts:
    """Sources by HEALPix pixel (nested) of one order, sorted by pixel."""

    order: int
    pixels: Int64[np.ndarray, " n"]
    rows: Int64[np.ndarray, " n"]

    def at(
        self, ra: Float64[np.ndarray, "y x"], dec: Float64[np.ndarray, "y x"]
    ) -> Float64[np.ndarray, "y x"]:
        """Counts at positions (deg); NaN where there are none, or no position."""
        on_sky = np.isfinite(ra) & np.isfinite(dec)
        counts = np.full(ra.shape, np.nan)
        wanted = healpix_29(ra[on_sky], dec[on_sky]) >> 2 * (ORDER - self.order)
        index = np.searchsorted(self.pixels, wanted).clip(max=len(self.pixels) - 1)
        counts[on_sky] = np.where(self.pixels[index] == wanted, self.rows[index], np.nan)
        return counts


# Columns -> tables of some rows each; may be called again for another pass.
Rows = Callable[[Sequence[str]], Iterable[pa.Table]]


def extent(rows: Rows) -> Field:
    """The cap of all rows, about the mean of the unit vectors; there must be a row."""
    count, summed = 0, np.zeros(3)
    for vectors in _vectors(rows):
        count += len(vectors)
        summed += vectors.sum(axis=0)
    mean = summed / count
    length = float(np.linalg.norm(mean))
    if length < 1e-6:
        return Field(0.0, 0.0, 180.0)
    x, y, z = centre = mean / length
    # The chord keeps its precision where the cosine of a small angle is 1.
    square = max(float(((vectors - centre) ** 2).sum(axis=1).max()) for vectors in _vectors(rows))
    radius = 2 * np.degrees(np.arcsin(min(1.0, np.sqrt(square) / 2)))
    ra, dec = np.degrees(np.arctan2(y, x)) % 360, np.degrees(np.arcsin(np.clip(z, -1, 1)))
    return Field(float(ra), float(dec), float(radius))


def _vectors(rows: Rows) -> Iterator[Float64[np.ndarray, "n 3"]]:
    for table in rows(["ra", "dec"]):
        ra, dec = (np.radians(table[name].to_numpy()) for name in ("ra", "dec"))
        yield np.stack([np.cos(dec) * np.cos(ra), np.cos(dec) * np.sin(ra), np.sin(dec)], axis=1)


def choose_order(field: Field, rows: int) -> int:
    """The HEALPix order whose cells are small against the field and hold several sources each."""
    cells = max(rows / _ROWS_PER_CELL, 1.0)
    if field.all_sky:
        return int(np.clip(np.log2(cells / 12) / 2, 3, _ALL_SKY_ORDER))
    across = np.clip(np.sqrt(cells), *_CELLS_ACROSS)
    side = 2 * max(field.radius, 1e-3) / across
    return int(np.clip(np.round(np.log2(_ORDER_0_SIDE_DEG / side)), 3, 18))


def count_cells(rows: Rows, order: int) -> Counts:
    """Rows by HEALPix pixel."""
    pixels, counts = np.empty(0, np.int64), np.empty(0, np.int64)
    for table in rows([HEALPIX]):
        places = table[HEALPIX].to_numpy() >> 2 * (ORDER - order)
        pixels, counts = add_counts(pixels, counts, places)
    return Counts(order, pixels, counts)


def tangent_wcs(field: Field, pixels: int) -> WCS:
    """A TAN projection of the field on a square of so many pixels, east to the left."""
    wcs = WCS(naxis=2)
    wcs.wcs.ctype = ["RA---TAN", "DEC--TAN"]
    wcs.wcs.crval = [field.ra, field.dec]
    half = np.degrees(np.tan(np.radians(_MARGIN * max(field.radius, 1e-3))))
    wcs.wcs.cdelt = [-2 * half / pixels, 2 * half / pixels]
    wcs.wcs.crpix = [pixels / 2 + 0.5, pixels / 2 + 0.5]
    return wcs
