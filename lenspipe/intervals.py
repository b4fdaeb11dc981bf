"""Work as half-open row intervals: what is planned, what is committed, what is left. Pure."""

from __future__ import annotations

from array import array
from collections.abc import Iterable

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


class Intervals:
    """Many intervals in little memory, by start."""

    def __init__(self, intervals: Iterable[Interval] = ()) -> None:
        flat = array("q")
        for interval in intervals:
            flat.extend(interval)
        pairs = np.frombuffer(flat, np.int64).reshape(-1, 2)
        pairs = pairs[np.lexsort((pairs[:, 1], pairs[:, 0]))]
        self.starts = array("q", pairs[:, 0].tobytes())
        self.stops = array("q", pairs[:, 1].tobytes())

    def __len__(self) -> int:
        return len(self.starts)

    def refuse_overlaps(self) -> None:
        """CorruptRunError where two overlap: then a row would count twice."""
        starts, stops = np.frombuffer(self.starts, np.int64), np.frombuffer(self.stops, np.int64)
        found = np.flatnonzero(starts[1:] < stops[:-1])
        if len(found):
            at = found[0]
            raise CorruptRunError(
                f"commits overlap: rows {starts[at + 1]}-{stops[at + 1]} begin before row "
                f"{stops[at]}"
            )


def pending(planned: Iterable[Interval], done: Intervals) -> list[Interval]:
    """Parts of the planned intervals that no committed one covers.

    CorruptRunError where two commits overlap.
    """
    done.refuse_overlaps()
    starts, stops = done.starts, done.stops
    left: list[Interval] = []
    position = 0
    for start, stop in sorted(planned):
        at = start
        while position < len(done) and stops[position] <= at:
            position += 1
        index = position
        while index < len(done) and starts[index] < stop:
            covered_from, covered_to = starts[index], stops[index]
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
