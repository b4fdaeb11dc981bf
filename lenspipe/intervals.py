"""Work as half-open row intervals: what is planned, what is committed, what is left. Pure."""

from __future__ import annotations

from array import array
from bisect import bisect_right
from collections.abc import Iterable, Iterator
from itertools import pairwise

import numpy as np
from jaxtyping import Int64

from lenspipe.errors import CorruptRunError

Interval = tuple[int, int]


class Groups:
    """Sizes of the groups of equal values in a long sorted column, of which parts come in turn."""

    def __init__(self) -> None:
        self._sizes = array("q")
        self._last: int | None = None

    def add(self, values: Int64[np.ndarray, " n"]) -> None:
        """The next values."""
        if not len(values):
            return
        changes = np.flatnonzero(np.diff(values)) + 1
        sizes = np.diff(np.concatenate([[0], changes, [len(values)]])).astype(np.int64)
        if self._last == int(values[0]):
            self._sizes[-1] += int(sizes[0])
            sizes = sizes[1:]
        self._sizes.frombytes(sizes.tobytes())
        self._last = int(values[-1])

    @property
    def sizes(self) -> Int64[np.ndarray, " m"]:
        """Rows of each group."""
        return np.array(self._sizes, np.int64)


def shard_bounds(
    group_rows: Int64[np.ndarray, " m"], shard_rows: int
) -> Int64[np.ndarray, " k_plus_1"]:
    """Boundaries of shards over rows that are sorted by group (tile, chunk).

    A group larger than `shard_rows` is divided evenly; smaller ones are put together whole, so that
    no small group is read by two shards. No shard has more than `shard_rows` rows or none.
    """
    bounds = array("q", [0])
    ends = array("q", np.cumsum(group_rows).tobytes())
    group = 0
    while group < len(ends):
        begin = bounds[-1]
        whole = bisect_right(ends, begin + shard_rows, group)  # as many groups as fit
        if whole > group:
            bounds.append(ends[whole - 1])
            group = whole
            continue
        rows = ends[group] - begin
        pieces = -(-rows // shard_rows)
        bounds.extend(begin + rows * piece // pieces for piece in range(1, pieces))
    return np.array(bounds, np.int64)


def divided(interval: Interval, most: int) -> list[Interval]:
    """The interval as equal pieces, as few as have no more than `most` rows each."""
    start, stop = interval
    rows = stop - start
    pieces = max(1, -(-rows // most))
    cuts = [start + rows * piece // pieces for piece in range(pieces + 1)]
    return list(pairwise(cuts))


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

    def overlaps(self) -> Iterator[tuple[Interval, Interval]]:
        """Each interval that begins inside an earlier one, after the first such."""
        starts, stops = np.frombuffer(self.starts, np.int64), np.frombuffer(self.stops, np.int64)
        reach = np.maximum.accumulate(stops)
        for late in (np.flatnonzero(starts[1:] < reach[:-1]) + 1).tolist():
            early = int(np.searchsorted(reach, starts[late], side="right"))
            yield (self.starts[early], self.stops[early]), (self.starts[late], self.stops[late])


def pending(planned: Iterable[Interval], done: Intervals) -> list[Interval]:
    """Parts of the planned intervals that no committed one covers."""
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
