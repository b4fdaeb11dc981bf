"""Which HEALPix pixels a catalogue is split into: few of them, and none with too many rows."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Int64

MAX_ORDER = 29
SKY = 12 << 2 * MAX_ORDER  # pixels of that order
FIRST_ORDER = 8  # 786,432 pixels of 0.05 deg²
ORDER_STEP = 4

# (order, lowest, parents): pixels of `order` that hold rows and how many, sorted by pixel;
# `parents`, pixels of the order before `lowest`, restrict it (None: the whole sky).
Histogram = Callable[
    [int, int, Int64[np.ndarray, " k"] | None],
    tuple[Int64[np.ndarray, " n"], Int64[np.ndarray, " n"]],
]


@dataclass(frozen=True)
class Partition:
    """A HEALPix pixel (nested) and the number of rows in it."""

    order: int
    pixel: int
    rows: int

    @property
    def first(self) -> int:
        """The smallest `healpix_29` in the pixel."""
        return self.pixel << 2 * (MAX_ORDER - self.order)

    @property
    def stop(self) -> int:
        """The `healpix_29` after the largest in the pixel."""
        return (self.pixel + 1) << 2 * (MAX_ORDER - self.order)


def plan_partitions(histogram: Histogram, limit: int) -> list[Partition]:
    """Partitions in the order of `healpix_29`, each the largest pixel of at most `limit` rows.

    Counts are first asked for at a low order; where single pixels hold more than `limit` rows,
    they are counted again at higher orders. Only a pixel of order 29 may hold more.
    """
    found: list[Partition] = []
    lowest, order, parents = 0, FIRST_ORDER, None
    while True:
        pixels, rows = histogram(order, lowest, parents)
        partitions, parents = align(pixels, rows, order, lowest, limit)
        found += partitions
        if not len(parents):
            return sorted(found, key=lambda partition: partition.first)
        if order == MAX_ORDER:
            counts = dict(zip(pixels.tolist(), rows.tolist(), strict=True))
            found += [Partition(order, p, counts[p]) for p in parents.tolist()]
            return sorted(found, key=lambda partition: partition.first)
        lowest, order = order + 1, min(order + ORDER_STEP, MAX_ORDER)


def align(
    pixels: Int64[np.ndarray, " n"],
    rows: Int64[np.ndarray, " n"],
    order: int,
    lowest: int,
    limit: int,
) -> tuple[list[Partition], Int64[np.ndarray, " k"]]:
    """Merge counted pixels of `order` into the largest pixels of at most `limit` rows.

    No merged pixel is of an order below `lowest`. Returns the partitions, and those pixels of
    `order` that hold more than `limit` rows by themselves.
    """
    found: list[Partition] = []
    for level in range(lowest, order + 1):
        merged, inverse = np.unique(pixels >> 2 * (order - level), return_inverse=True)
        sums = np.zeros(len(merged), np.int64)
        np.add.at(sums, inverse, rows)
        fits = sums <= limit
        found += [
            Partition(level, int(pixel), int(total))
            for pixel, total in zip(merged[fits], sums[fits], strict=True)
        ]
        left = ~fits[inverse]
        pixels, rows = pixels[left], rows[left]
    return found, pixels
