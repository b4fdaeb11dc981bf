"""Cones on the sky: which ranges of `healpix_29` they touch, and how far positions are."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float64, Int64

from lenspipe.catalogue.partitions import MAX_ORDER, SKY
from lenspipe.errors import InputError
from lenspipe.sky import separation_deg

# Cells of this fraction of the radius: some fifty of them cover a cone, and little around it.
_CELLS_A_RADIUS = 4.0
_FINER = 2  # orders by which cells are looked at more finely than they are given
_ORDER_0_DEG = 58.6  # side of a HEALPix cell of order 0; it halves with each order
# Added to the radius where cells are chosen: the last digits of positions are not told apart.
_MARGIN_DEG = 1e-9
# A wider cone is a quarter of the sky and looked for in all of it: cdshealpix 0.10 leaves cells out
# of cones of nearly 180 degrees.
_WIDE_DEG = 60.0


@dataclass(frozen=True)
class Cone:
    """A circle on the sky, ICRS. The border is inside.

    InputError where a number is not finite, dec_deg not within -90..90 or radius_deg not in
    0..180. ra_deg may be any number of turns.
    """

    ra_deg: float
    dec_deg: float
    radius_deg: float

    def __post_init__(self) -> None:
        _require("ra", self.ra_deg, -math.inf, math.inf, "a finite number of degrees")
        _require("dec", self.dec_deg, -90.0, 90.0, "degrees within -90..90")
        _require("radius", self.radius_deg, 0.0, 180.0, "an angle within 0..180 degrees")
        object.__setattr__(self, "ra_deg", self.ra_deg % 360.0)

    def separation_deg(
        self, ra_deg: Float64[np.ndarray, " n"], dec_deg: Float64[np.ndarray, " n"]
    ) -> Float64[np.ndarray, " n"]:
        """Angular distance from the centre."""
        return separation_deg(self.ra_deg, self.dec_deg, ra_deg, dec_deg)

    def ranges(self) -> Int64[np.ndarray, "n 2"]:
        """Ranges [first, stop) of `healpix_29`, rising and apart, that cover the cone."""
        from astropy.coordinates import Latitude, Longitude
        from astropy.units import deg
        from cdshealpix.nested import cone_search

        radius = self.radius_deg + _MARGIN_DEG
        if radius > _WIDE_DEG:
            return np.array([[0, SKY]], np.int64)
        pixels, orders, _ = cone_search(
            Longitude(self.ra_deg, deg),
            Latitude(self.dec_deg, deg),
            radius * deg,
            _order(radius),
            _FINER,
        )
        shift = 2 * (MAX_ORDER - orders.astype(np.int64))
        first = pixels.astype(np.int64) << shift
        return merged(np.stack([first, first + (np.int64(1) << shift)], axis=1))


def merged(ranges: Int64[np.ndarray, "n 2"]) -> Int64[np.ndarray, "m 2"]:
    """Ranges [first, stop) in order, those that touch or overlap as one."""
    if not len(ranges):
        return np.zeros((0, 2), np.int64)
    ordered = ranges[np.argsort(ranges[:, 0])]
    reach = np.maximum.accumulate(ordered[:, 1])
    begins = np.r_[True, ordered[1:, 0] > reach[:-1]]
    ends = np.r_[begins[1:], True]
    return np.stack([ordered[begins, 0], reach[ends]], axis=1)


def inside(
    values: Int64[np.ndarray, " n"], ranges: Int64[np.ndarray, "m 2"]
) -> Bool[np.ndarray, " n"]:
    """Which values lie in one of some rising ranges [first, stop)."""
    at = np.searchsorted(ranges[:, 0], values, side="right") - 1
    found = at >= 0
    return found & (values < ranges[np.maximum(at, 0), 1]) if len(ranges) else found


def overlap(first: int, last: int, ranges: Int64[np.ndarray, "m 2"]) -> bool:
    """Whether any value from `first` to `last` lies in one of some rising ranges [first, stop)."""
    at = int(np.searchsorted(ranges[:, 1], first, side="right"))
    return at < len(ranges) and int(ranges[at, 0]) <= last


def _order(radius_deg: float) -> int:
    cell_deg = radius_deg / _CELLS_A_RADIUS
    return min(max(math.floor(math.log2(_ORDER_0_DEG / cell_deg)), 0), MAX_ORDER - _FINER)


def _require(field: str, value: float, low: float, high: float, expected: str) -> None:
    if not (math.isfinite(value) and low <= value <= high):
        raise InputError(field, expected, value)
