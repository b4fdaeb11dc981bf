"""Positions and what lies near them, by HEALPix: no row meets the whole sky."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
from jaxtyping import Float64, Int64

from lenspipe.catalogue.cone import merged
from lenspipe.catalogue.partitions import MAX_ORDER
from lenspipe.healpix import healpix_29

# Smallest distance across a cell of order 0 is 40.8°, measured on the sphere; it halves with each
# order but for a few per cent.
_ACROSS_DEG = 35.0
_PAIRS = 4_000_000  # whose distances are in memory at a time


class Cells:
    """Positions by the HEALPix cells that they are looked for in: their own and those around, which
    hold all that is within the radius. Made once, asked by many tables."""

    def __init__(
        self,
        ra_deg: Float64[np.ndarray, " n"],
        dec_deg: Float64[np.ndarray, " n"],
        radius_arcsec: float,
    ) -> None:
        from cdshealpix.nested import neighbours

        order = _order(radius_arcsec / 3600.0)
        self._shift = 2 * (MAX_ORDER - order)
        own = healpix_29(ra_deg, dec_deg) >> self._shift
        distinct, which = np.unique(own, return_inverse=True)
        around = (
            np.asarray(neighbours(distinct.astype(np.uint64), order)).astype(np.int64)
            if len(distinct)
            else np.zeros((0, 9), np.int64)
        )
        cells = around[which].ravel()  # the cell itself is one of the nine; -1: there is none
        rows = np.repeat(np.arange(len(own)), around.shape[1])
        there = cells >= 0
        order_of = np.argsort(cells[there], kind="stable")
        self._cells, self._rows = cells[there][order_of], rows[there][order_of]

    def ranges(self) -> Int64[np.ndarray, "n 2"]:
        """Ranges [first, stop) of `healpix_29` that hold all cells."""
        first = np.unique(self._cells) << self._shift
        return merged(np.stack([first, first + (1 << self._shift)], axis=1))

    def pairs(
        self, healpix: Int64[np.ndarray, " m"]
    ) -> Iterator[tuple[Int64[np.ndarray, " k"], Int64[np.ndarray, " k"]]]:
        """(position, source) wherever a source is in a cell of a position; `healpix`: of the
        sources, rising. Some millions at a time."""
        if not len(healpix):
            return
        low = np.searchsorted(self._cells, healpix[0] >> self._shift)
        high = np.searchsorted(self._cells, healpix[-1] >> self._shift, side="right")
        cells, rows = self._cells[low:high], self._rows[low:high]
        begin = np.searchsorted(healpix, cells << self._shift)
        counts = np.searchsorted(healpix, (cells + 1) << self._shift) - begin
        held = counts > 0
        begin, counts, rows = begin[held], counts[held], rows[held]
        ends = np.cumsum(counts)
        at = 0
        while at < len(counts):
            before = ends[at] - counts[at]
            to = max(int(np.searchsorted(ends, before + _PAIRS, side="right")), at + 1)
            some = counts[at:to]
            within = np.arange(int(some.sum())) - np.repeat(ends[at:to] - some - before, some)
            yield np.repeat(rows[at:to], some), np.repeat(begin[at:to], some) + within
            at = to


def _order(radius_deg: float) -> int:
    """The finest order whose cells are wider than the radius at their narrowest."""
    return min(max(math.floor(math.log2(_ACROSS_DEG / radius_deg)), 0), MAX_ORDER)
