"""Objects out of chunked arrays: which chunks, their pixels put together, their faults kept apart.

An array (n, …) is cut into chunks on every axis. The chunks that share a position on the first
axis hold the same objects: a granule. `Places` says where a chunk's bytes are; plain chunks are
read by the objects that are wanted, packed ones whole.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from math import prod
from typing import Any, Protocol

import numpy as np
from jaxtyping import Int64

from lenspipe.cutouts.chunks.sparse import Layout, plan_runs
from lenspipe.cutouts.chunks.unpack import Unpacking, unpack_all
from lenspipe.cutouts.faults import MissingPixelsError
from lenspipe.cutouts.files.ranges import Buffer, Files, Range

Coordinates = tuple[int, ...]
Pixels = np.ndarray[Any, Any]

_BLOCK_BYTES = 1024 * 1024  # pixels handed on at once: few enough to stay in the cache
_IN_FLIGHT = 8  # granules unpacked together, so that several threads have work


@dataclass(frozen=True)
class Piece:
    """Objects `wanted[start:stop]` of a request. pixels: (k, band, y, x), or what went wrong."""

    start: int
    stop: int
    pixels: Pixels | Exception
    bytes_read: int


@dataclass(frozen=True)
class Share:
    """What a chunk gives to a region. pixels: of the chunk, or its fault; inside: which of them,
    but for the first axis; target: where those go in the region."""

    pixels: Pixels | Exception
    inside: tuple[slice, ...]
    target: tuple[slice, ...]

    def taken(self, objects: slice | Int64[np.ndarray, " j"]) -> Pixels:
        """The region's pixels of some objects; the fault, where there is one, is raised."""
        if isinstance(self.pixels, Exception):
            raise self.pixels
        return self.pixels[(objects, *self.inside)]


class Places(Protocol):
    """Where the chunks of an array are."""

    def packed(self, chunks: Sequence[Coordinates]) -> Iterator[Buffer | Exception]:
        """Bytes of each chunk as stored, or the fault in its place, in the order given."""
        ...

    def plain(self, chunk: Coordinates) -> Range | Exception:
        """Where the bytes of an unpacked chunk begin."""
        ...

    @property
    def files(self) -> Files:
        """What `plain` ranges are of."""
        ...


@dataclass(frozen=True)
class Chunked:
    """One array. shape: of the array; unpacking: of its chunks; fill: the value that chunks which
    were never written stand for, None where they count as missing."""

    shape: tuple[int, ...]
    unpacking: Unpacking
    places: Places
    fill: float | None = None

    @property
    def granule(self) -> int:
        """Objects of a chunk."""
        return self.unpacking.shape[0]

    @property
    def object_bytes(self) -> int:
        """Bytes of the pixels of one object."""
        return prod(self.shape[1:]) * self.unpacking.dtype.itemsize

    @property
    def by_objects(self) -> bool:
        """Whether the bytes of one object can be read alone."""
        return self.unpacking.plain and self.unpacking.shape[1:] == self.shape[1:]

    def corners(self, region: Sequence[slice]) -> list[Coordinates]:
        """Coordinates, but for the first axis, of the chunks that a region touches."""
        lengths = self.unpacking.shape[1:]
        spans = [
            range(part.start // length, -(-part.stop // length))
            for part, length in zip(region, lengths, strict=True)
        ]
        return list(product(*spans))

    def granules(self, numbers: Sequence[int], region: Sequence[slice]) -> Iterator[list[Share]]:
        """The chunks of each granule that a region touches."""
        corners = self.corners(region)
        coordinates = [(number, *corner) for number in numbers for corner in corners]
        unpacked = unpack_all(self.unpacking, self.places.packed(coordinates))
        cuts = [_cut(corner, self.unpacking.shape[1:], region) for corner in corners]
        for _ in numbers:
            yield [Share(self._filled(next(unpacked)), *cut) for cut in cuts]

    def _filled(self, pixels: Pixels | Exception) -> Pixels | Exception:
        if self.fill is not None and isinstance(pixels, MissingPixelsError):
            return np.full(self.unpacking.shape, self.fill, self.unpacking.dtype)
        return pixels


def _cut(
    corner: Coordinates, lengths: tuple[int, ...], region: Sequence[slice]
) -> tuple[tuple[slice, ...], tuple[slice, ...]]:
    """Which part of the chunk at `corner` a region takes, and where in the region that goes."""
    inside, target = [], []
    for at, length, part in zip(corner, lengths, region, strict=True):
        low, high = max(part.start, at * length), min(part.stop, (at + 1) * length)
        inside.append(slice(low - at * length, high - at * length))
        target.append(slice(low - part.start, high - part.start))
    return tuple(inside), tuple(target)


def packed_pieces(
    arrays: Sequence[Chunked],
    wanted: Int64[np.ndarray, " k"],
    region: Sequence[slice],
    stored_bytes: float,
) -> Iterator[Piece]:
    """Objects of arrays that share their chunks' lengths; several arrays are stacked along a new
    second axis. stored_bytes: of one object."""
    granule = arrays[0].granule
    numbers, firsts = np.unique(wanted // granule, return_index=True)
    stops = np.r_[firsts[1:], len(wanted)]
    for begin in range(0, len(numbers), _batch(arrays)):
        some = slice(begin, begin + _batch(arrays))
        chunks = [array.granules(numbers[some].tolist(), region) for array in arrays]
        gathered = _Gathered(_BLOCK_BYTES)
        for number, start, stop in zip(
            numbers[some].tolist(), firsts[some].tolist(), stops[some].tolist(), strict=True
        ):
            local = wanted[start:stop] - number * granule
            pixels = _assembled([next(part) for part in chunks], local, region)
            yield from gathered.add(Piece(start, stop, pixels, int(granule * stored_bytes)))
        yield from gathered.rest()


def _batch(arrays: Sequence[Chunked]) -> int:
    granule_bytes = sum(array.object_bytes for array in arrays) * arrays[0].granule
    return max(_IN_FLIGHT, 32 * _BLOCK_BYTES // max(granule_bytes, 1))


def _assembled(
    parts: Sequence[Sequence[Share]],
    local: Int64[np.ndarray, " j"],
    region: Sequence[slice],
) -> Pixels | Exception:
    """The objects `local` of one granule; the first fault of its chunks if there is one."""
    shares = [share for part in parts for share in part]
    sound = [share.pixels for share in shares if not isinstance(share.pixels, Exception)]
    for share in shares:
        if isinstance(share.pixels, Exception):
            return share.pixels
    take: Any = slice(None) if len(local) == len(sound[0]) else local
    if len(shares) == 1 and len(parts) == 1:
        return shares[0].taken(take)
    lengths = [part.stop - part.start for part in region]
    out = np.empty((len(parts), len(local), *lengths), sound[0].dtype)
    for number, part in enumerate(parts):
        for share in part:
            where: Any = (number, slice(None), *share.target)
            out[where] = share.taken(take)
    return out[0] if len(parts) == 1 else out.swapaxes(0, 1)


class _Gathered:
    """Joins small pieces that follow one another into larger ones."""

    def __init__(self, most_bytes: int) -> None:
        self._most, self._pieces, self._bytes = most_bytes, list[Piece](), 0

    def add(self, piece: Piece) -> Iterator[Piece]:
        """Take one more piece; gives what is complete."""
        if isinstance(piece.pixels, Exception):
            yield from self.rest()
            yield piece
            return
        self._pieces.append(piece)
        self._bytes += piece.pixels.nbytes
        if self._bytes >= self._most:
            yield from self.rest()

    def rest(self) -> Iterator[Piece]:
        """What was taken and not yet given."""
        pieces, self._pieces, self._bytes = self._pieces, [], 0
        if len(pieces) == 1:
            yield pieces[0]
        elif pieces:
            pixels = np.concatenate(
                [p.pixels for p in pieces if not isinstance(p.pixels, Exception)]
            )
            total = sum(piece.bytes_read for piece in pieces)
            yield Piece(pieces[0].start, pieces[-1].stop, pixels, total)


def plain_pieces(
    array: Chunked,
    wanted: Int64[np.ndarray, " k"],
    region: Sequence[slice],
    request_bytes: float,
) -> Iterator[Piece]:
    """Objects of an array whose bytes are its pixels: ranges of objects, planned."""
    granule, object_bytes = array.granule, array.object_bytes
    total = array.shape[0]
    layout = Layout(total, 1, granule, object_bytes)
    most = max(1, int(max(_BLOCK_BYTES, 16 * request_bytes) // object_bytes))
    spans = [
        (first, min(first + most, run.stop))
        for run in plan_runs(wanted, layout, request_bytes)
        for first in range(run.start, run.stop, most)
    ]
    yield from _plain_spans(array, spans, wanted, region)


def _plain_spans(
    array: Chunked,
    spans: Sequence[tuple[int, int]],
    wanted: Int64[np.ndarray, " k"],
    region: Sequence[slice],
) -> Iterator[Piece]:
    """Spans of objects, each in one request; where one fails, its objects one by one."""
    lone = len(array.shape) - 1
    faults: dict[int, Exception] = {}
    ranges: list[Range] = []
    asked: list[tuple[int, int]] = []
    for first, stop in spans:
        if not np.any((wanted >= first) & (wanted < stop)):
            continue
        chunk = first // array.granule
        place = array.places.plain((chunk, *[0] * lone))
        if isinstance(place, Exception):
            faults[first] = place
            ranges.append(Range(""))
        else:
            start = place.start + (first - chunk * array.granule) * array.object_bytes
            ranges.append(Range(place.name, start, start + (stop - first) * array.object_bytes))
        asked.append((first, stop))
    sound = [r for r, (first, _) in zip(ranges, asked, strict=True) if first not in faults]
    found = array.places.files.read(sound)
    for first, stop in asked:
        data = faults[first] if first in faults else next(found)
        low, high = np.searchsorted(wanted, [first, stop]).tolist()
        if isinstance(data, Exception):
            yield from _one_by_one(array, data, (first, stop), wanted, region)
            continue
        pixels = np.frombuffer(data, array.unpacking.dtype).reshape(-1, *array.shape[1:])
        take: Any = slice(None) if high - low == stop - first else wanted[low:high] - first
        yield Piece(low, high, pixels[(take, *region)], (stop - first) * array.object_bytes)


def _one_by_one(
    array: Chunked,
    fault: Exception,
    span: tuple[int, int],
    wanted: Int64[np.ndarray, " k"],
    region: Sequence[slice],
) -> Iterator[Piece]:
    first, stop = span
    low, high = np.searchsorted(wanted, span).tolist()
    if isinstance(fault, FileNotFoundError):
        fault = MissingPixelsError(f"chunk of object {first} was never written or is gone")
    missing = isinstance(fault, MissingPixelsError)
    if missing and array.fill is not None:
        lengths = [part.stop - part.start for part in region]
        yield Piece(low, high, np.full((high - low, *lengths), array.fill, np.float32), 0)
    elif missing or stop - first == 1:
        yield Piece(low, high, fault, 0)
    else:
        alone = [(number, number + 1) for number in wanted[low:high].tolist()]
        yield from _plain_spans(array, alone, wanted, region)
