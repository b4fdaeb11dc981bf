"""Which bytes to read for a few of many objects: pure planning, executed by the readers.

Objects lie one after the other. The smallest part that storage hands out by itself is a granule
(one object of a contiguous array, a chunk, an inner chunk of a shard); a request may span granules
of the same file or shard, never two of them. A request costs its bytes plus a fixed price, given
as the number of bytes that could be read in the same time.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from jaxtyping import Int64


@dataclass(frozen=True)
class Layout:
    """How objects lie in storage. total: objects; granule: objects per smallest readable part;
    group: objects per file or shard; object_bytes: bytes of one object as stored."""

    total: int
    granule: int
    group: int
    object_bytes: float

    def __post_init__(self) -> None:
        if self.granule < 1 or self.group < 1 or self.group % self.granule:
            raise ValueError(f"group {self.group} is no multiple of granule {self.granule}")


@dataclass(frozen=True)
class Run:
    """Objects [start, stop) in one request."""

    start: int
    stop: int


# A request for a local file costs about 20 microseconds, in which a disk or the page cache hands
# out some 64 KiB; an object store's 20 ms are worth about 2 MiB of its bandwidth.
LOCAL_REQUEST_BYTES = 64 * 1024
REMOTE_REQUEST_BYTES = 2 * 1024 * 1024


def plan_runs(
    wanted: Int64[np.ndarray, " k"], layout: Layout, request_bytes: float
) -> tuple[Run, ...]:
    """The cheapest requests that hold all of `wanted` (any order, repeats allowed).

    Two neighbouring granules of a group share a request where the gap between them costs less
    than a request. Gaps are independent of one another, so this is the optimum.
    """
    granules = np.unique(np.asarray(wanted, dtype=np.int64) // layout.granule)
    if not len(granules):
        return ()
    per_group = layout.group // layout.granule
    gap_bytes = (np.diff(granules) - 1) * layout.granule * layout.object_bytes
    same_group = np.diff(granules // per_group) == 0
    breaks = np.flatnonzero(~(same_group & (gap_bytes <= request_bytes))) + 1
    firsts = granules[np.r_[0, breaks]] * layout.granule
    lasts = (granules[np.r_[breaks - 1, len(granules) - 1]] + 1) * layout.granule
    stops = np.minimum(lasts, layout.total)
    return tuple(Run(a, b) for a, b in zip(firsts.tolist(), stops.tolist(), strict=True))


def plan_strips(
    starts: Int64[np.ndarray, " k"],
    stops: Int64[np.ndarray, " k"],
    rows: int,
    row_bytes: float,
    request_bytes: float,
    most_bytes: float = math.inf,
) -> tuple[Run, ...]:
    """The cheapest strips of image rows that hold every stamp [start, stop), clipped to the image.

    Stamps that overlap, or lie so close that the rows between cost less than a request, share one,
    unless it would grow beyond `most_bytes`: then the next strip begins with the next stamp, and
    the rows that both need are read twice.
    """
    low, high = np.clip(starts, 0, rows), np.clip(stops, 0, rows)
    strips: list[Run] = []
    for start, stop in sorted(set(zip(low.tolist(), high.tolist(), strict=True))):
        if start >= stop:
            continue
        joined = strips and (start - strips[-1].stop) * row_bytes <= request_bytes
        if joined and (max(strips[-1].stop, stop) - strips[-1].start) * row_bytes <= most_bytes:
            strips[-1] = Run(strips[-1].start, max(strips[-1].stop, stop))
        else:
            strips.append(Run(start, stop))
    return tuple(strips)


@dataclass(frozen=True)
class Split:
    """dense: groups to read whole; sparse: objects of the other groups, sorted, to read alone."""

    dense: tuple[Run, ...]
    sparse: Int64[np.ndarray, " k"]


def split_dense(
    wanted: Int64[np.ndarray, " k"], layout: Layout, request_bytes: float, decode_bytes: float
) -> Split:
    """Which groups (shards) to read whole, because that costs less than their wanted granules.

    Alone, each wanted granule costs a request, its bytes, and `decode_bytes` for unpacking; whole,
    a group costs one request, and bytes and unpacking of all its granules.
    """
    wanted = np.unique(np.asarray(wanted, dtype=np.int64))
    granule_bytes = layout.granule * layout.object_bytes + decode_bytes
    groups, counts = np.unique(
        np.unique(wanted // layout.granule) * layout.granule // layout.group, return_counts=True
    )
    starts = groups * layout.group
    stops = np.minimum(starts + layout.group, layout.total)
    whole = request_bytes + -(-(stops - starts) // layout.granule) * granule_bytes
    alone = counts * (request_bytes + granule_bytes)
    dense = whole <= alone
    runs = zip(starts[dense].tolist(), stops[dense].tolist(), strict=True)
    in_dense = np.isin(wanted // layout.group, groups[dense])
    return Split(tuple(Run(a, b) for a, b in runs), wanted[~in_dense])


def batches(
    objects: Int64[np.ndarray, " k"], granule: int, most: int
) -> tuple[Int64[np.ndarray, " j"], ...]:
    """Sorted objects in parts of about `most`, none of which splits a granule."""
    if not len(objects):
        return ()
    granules = objects // granule
    first = np.r_[True, np.diff(granules) != 0]
    bounds, size = [0], 0
    edges = np.r_[np.flatnonzero(first), len(objects)].tolist()
    for start, stop in pairwise(edges):
        if size and size + stop - start > most:
            bounds.append(start)
            size = 0
        size += stop - start
    return tuple(np.split(objects, bounds[1:]))


def merge_ranges(
    starts: Int64[np.ndarray, " k"],
    stops: Int64[np.ndarray, " k"],
    request_bytes: float,
    most_bytes: float = math.inf,
) -> tuple[list[tuple[int, int]], Int64[np.ndarray, " k"]]:
    """The cheapest requests that hold byte ranges of one file, in any order: those that lie so
    close that the bytes between cost less than a request share one, unless it would grow beyond
    `most_bytes`. Gives the requests, and which of them holds each range."""
    order = np.argsort(starts, kind="stable")
    merged: list[tuple[int, int]] = []
    member = np.empty(len(order), np.int64)
    for index, start, stop in zip(
        order.tolist(), starts[order].tolist(), stops[order].tolist(), strict=True
    ):
        near = merged and start - merged[-1][1] <= request_bytes
        if near and max(stop, merged[-1][1]) - merged[-1][0] <= most_bytes:
            merged[-1] = (merged[-1][0], max(stop, merged[-1][1]))
        else:
            merged.append((start, stop))
        member[index] = len(merged) - 1
    return merged, member
