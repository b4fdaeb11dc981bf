"""Where the rows of part files lie on the sky, counted in passes over one column."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Int64, UInt64

from lenspipe.catalogue.partitions import FIRST_ORDER, MAX_ORDER, SKY
from lenspipe.errors import CorruptRunError
from lenspipe.run_directory import RunDirectory
from lenspipe.storage.external_sort import Sample, divide, stream

HEALPIX = "healpix_29"
Cells = tuple[Int64[np.ndarray, " n"], Int64[np.ndarray, " n"]]


@dataclass(frozen=True)
class Places:
    """What the first pass found. bounds: first `healpix_29` of all pieces but the first, so that
    each piece is small enough to be sorted in memory. coarse: rows per pixel of `FIRST_ORDER`."""

    run: RunDirectory
    parts: Sequence[str]
    bounds: UInt64[np.ndarray, " m"]
    coarse: Int64[np.ndarray, " n"]

    def histogram(self, order: int, lowest: int, parents: Int64[np.ndarray, " k"] | None) -> Cells:
        """Pixels that hold rows and how many: see `partitions.Histogram`."""
        if parents is None and order == FIRST_ORDER:
            pixels = np.flatnonzero(self.coarse)
            return pixels, self.coarse[pixels]
        pixels, rows = np.empty(0, np.int64), np.empty(0, np.int64)
        for table in stream(self.run, self.parts, [HEALPIX]):
            places = table[HEALPIX].to_numpy()
            if parents is not None:
                inside = np.isin(places >> 2 * (MAX_ORDER - lowest + 1), parents)
                places = places[inside]
            pixels, rows = add_counts(pixels, rows, places >> 2 * (MAX_ORDER - order))
        return pixels, rows


def find_places(run: RunDirectory, parts: Sequence[str]) -> Places:
    """The first pass; CorruptRunError where an index is none of the sky's."""
    sample = Sample()
    coarse = np.zeros(12 << 2 * FIRST_ORDER, np.int64)
    for table in stream(run, parts, [HEALPIX]):
        places = table[HEALPIX].to_numpy()
        if places.min() < 0 or places.max() >= SKY:
            raise CorruptRunError(f"scores: {HEALPIX}: expected 0 to {SKY - 1}, found others")
        sample.add(places)
        coarse += np.bincount(places >> 2 * (MAX_ORDER - FIRST_ORDER), minlength=len(coarse))
    return Places(run, parts, divide(sample.keys[0].astype(np.uint64), sample.pieces), coarse)


def add_counts(
    pixels: Int64[np.ndarray, " n"], rows: Int64[np.ndarray, " n"], more: Int64[np.ndarray, " k"]
) -> Cells:
    """Counts of sorted pixels with those of further rows."""
    found, counts = np.unique(more, return_counts=True)
    merged, inverse = np.unique(np.concatenate([pixels, found]), return_inverse=True)
    summed = np.zeros(len(merged), np.int64)
    np.add.at(summed, inverse, np.concatenate([rows, counts]))
    return merged, summed
