"""Where on the sky a run's sources are: HEALPix counts, drawn for the whole sky or for a field."""

from __future__ import annotations

from dataclasses import dataclass

import duckdb
import numpy as np
from astropy.wcs import WCS
from jaxtyping import Float64, Int64

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


def extent(connection: duckdb.DuckDBPyConnection) -> Field:
    """The cap of table `scores`, about the mean of the unit vectors."""
    vector = "cos(radians(dec)) * cos(radians(ra)) AS x, cos(radians(dec)) * sin(radians(ra)) AS y"
    table = f"(SELECT {vector}, sin(radians(dec)) AS z FROM scores)"  # noqa: S608  # constants
    mean = np.array(_row(connection, f"SELECT avg(x), avg(y), avg(z) FROM {table}"))  # noqa: S608
    length = float(np.linalg.norm(mean))
    if length < 1e-6:
        return Field(0.0, 0.0, 180.0)
    x, y, z = mean / length
    # The chord keeps its precision where the cosine of a small angle is 1.
    chord = f"(x - {x!r}) ** 2 + (y - {y!r}) ** 2 + (z - {z!r}) ** 2".replace("np.float64", "")
    (square,) = _row(connection, f"SELECT max({chord}) FROM {table}")  # noqa: S608  # numbers
    radius = 2 * np.degrees(np.arcsin(min(1.0, np.sqrt(square) / 2)))
    ra, dec = np.degrees(np.arctan2(y, x)) % 360, np.degrees(np.arcsin(np.clip(z, -1, 1)))
    return Field(float(ra), float(dec), float(radius))


def choose_order(field: Field, rows: int) -> int:
    """The HEALPix order whose cells are small against the field and hold several sources each."""
    cells = max(rows / _ROWS_PER_CELL, 1.0)
    if field.all_sky:
        return int(np.clip(np.log2(cells / 12) / 2, 3, _ALL_SKY_ORDER))
    across = np.clip(np.sqrt(cells), *_CELLS_ACROSS)
    side = 2 * max(field.radius, 1e-3) / across
    return int(np.clip(np.round(np.log2(_ORDER_0_SIDE_DEG / side)), 3, 18))


def count_cells(connection: duckdb.DuckDBPyConnection, order: int) -> Counts:
    """Rows of table `scores` by HEALPix pixel."""
    shift = 2 * (ORDER - order)
    counted = connection.execute(
        f"SELECT healpix_29 >> {shift} AS pixel, count(*) AS n "  # noqa: S608  # a number
        "FROM scores GROUP BY pixel ORDER BY pixel"
    ).fetchnumpy()
    return Counts(order, counted["pixel"].astype(np.int64), counted["n"].astype(np.int64))


def tangent_wcs(field: Field, pixels: int) -> WCS:
    """A TAN projection of the field on a square of so many pixels, east to the left."""
    wcs = WCS(naxis=2)
    wcs.wcs.ctype = ["RA---TAN", "DEC--TAN"]
    wcs.wcs.crval = [field.ra, field.dec]
    half = np.degrees(np.tan(np.radians(_MARGIN * max(field.radius, 1e-3))))
    wcs.wcs.cdelt = [-2 * half / pixels, 2 * half / pixels]
    wcs.wcs.crpix = [pixels / 2 + 0.5, pixels / 2 + 0.5]
    return wcs


def _row(connection: duckdb.DuckDBPyConnection, query: str) -> tuple[float, ...]:
    return tuple(float(value) for value in connection.execute(query).fetchall()[0])
