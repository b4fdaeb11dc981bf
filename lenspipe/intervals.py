"""Work as half-open row intervals: what is planned, what is committed, what is left. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import pairwise

import numpy as np
from jaxtyping import Int64

from lenspipe.errors import CorruptRunError

Interval = tuple[int, int]


def shard_bounds(
    group_rows: Int64[np.ndarray, " m"], shard_rows: int
) -> Int64[np.ndarray, " k_plus_1"]:
    """Boundaries of shards over rows that are sorted by group (tile, chunk).

    A group larger than `shard_rows` is divided evenly; smaller ones are put together whole, so that
    no small group is read by two shards. No shard has more than `shard_rows` rows or none.
    """
    bounds = [0]
    end = 0  # rows of whole groups seen so far
    for rows in group_rows.tolist():
        if end + rows - bounds[-1] > shard_rows and end > bounds[-1]:
            bounds.append(end)
        pieces = -(-rows // shard_rows)
        if pieces > 1:
            bounds.extend(end + rows * piece // pieces for piece in range(1, pieces))
        end += rows
    if end > bounds[-1]:
        bounds.append(end)
    return np.asarray(bounds, dtype=np.int64)


def pending(planned: Iterable[Interval], done: Sequence[Interval]) -> list[Interval]:
    """Parts of the planned intervals that no committed one covers.

    CorruptRunError where two commits overlap: then a row would count twice.
    """
    ordered = sorted(done)
    for (_, first_stop), (second_start, second_stop) in pairwise(ordered):
        if second_start < first_stop:
            raise CorruptRunError(
                f"commits overlap: rows {second_start}-{second_stop} begin before row {first_stop}"
            )
    left: list[Interval] = []
    position = 0
    for start, stop in sorted(planned):
        at = start
        while position < len(ordered) and ordered[position][1] <= at:
            position += 1
        index = position
        while index < len(ordered) and ordered[index][0] < stop:
            covered_from, covered_to = ordered[index]
            if covered_from > at:
                left.append((at, covered_from))
            at = max(at, covered_to)
            index += 1
        if at < stop:
            left.append((at, stop))
    return left


def halves(interval: Interval) -> list[Interval]:
    """The two halves of an interval of at least two rows."""
    start, stop = interval
    middle = (start + stop) // 2
    return [(start, middle), (middle, stop)]
