"""Where the bytes of a Zarr array's chunks are: in files of their own, or inside shards.

Sharding: Zarr v3 specification, codec `sharding_indexed`: a shard ends (or begins) with an index
of (offset, length) per chunk, little-endian uint64, both 2^64 - 1 where a chunk was not written.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from math import prod
from typing import Any

import numpy as np
from zarr.codecs import BytesCodec, Crc32cCodec, ShardingCodec

from lenspipe.cutouts.chunks.chunked import Chunked, Coordinates
from lenspipe.cutouts.chunks.sparse import LOCAL_REQUEST_BYTES, merge_ranges
from lenspipe.cutouts.chunks.unpack import Unpacking, check_crc32c, zarr_steps, zarr_v2_steps
from lenspipe.cutouts.faults import MissingPixelsError, UnreadableError
from lenspipe.cutouts.files.ranges import Buffer, Files, Range

_UNWRITTEN = np.uint64(2**64 - 1)
_CRC_BYTES = 4
Key = Callable[[Coordinates], str]


def chunked(array: Any, files: Files, request_bytes: float, sparse: bool) -> Chunked | None:
    """How to read an array without zarr-python; None where its codecs are not known here."""
    metadata = array.metadata
    fill = float(metadata.fill_value) if sparse and metadata.fill_value is not None else None
    key: Key = lambda chunk: f"{array.path}/{metadata.encode_chunk_key(chunk)}"  # noqa: E731 - short
    if metadata.zarr_format == 2:
        steps, dtype = zarr_v2_steps(metadata), metadata.dtype.to_native_dtype()
        codecs: Sequence[Any] = ()
    else:
        dtype, codecs = metadata.data_type.to_native_dtype(), metadata.codecs
        sharding = codecs[0] if len(codecs) == 1 and isinstance(codecs[0], ShardingCodec) else None
        if sharding is not None:
            codecs = sharding.codecs
        steps = zarr_steps(codecs)
        dtype = _ordered(dtype, codecs)
        if steps is not None and sharding is not None:
            return _sharded(
                array,
                sharding,
                Unpacking(steps, dtype, sharding.chunk_shape),
                key,
                files,
                request_bytes,
                fill,
            )
    if steps is None or dtype.kind not in "iuf":
        return None
    unpacking = Unpacking(steps, dtype, tuple(array.chunks))
    return Chunked(tuple(array.shape), unpacking, ChunkFiles(files, key), fill)


def _ordered(dtype: np.dtype[Any], codecs: Sequence[Any]) -> np.dtype[Any]:
    """The type as it lies in the file."""
    big = (
        codecs
        and isinstance(codecs[0], BytesCodec)
        and getattr(codecs[0].endian, "value", "") == "big"
    )
    return dtype.newbyteorder(">" if big else "<")


@dataclass(frozen=True)
class ChunkFiles:
    """A file per chunk."""

    files: Files
    key: Key

    def packed(self, chunks: Sequence[Coordinates]) -> Iterator[Buffer | Exception]:
        """See `Places`."""
        names = [self.key(chunk) for chunk in chunks]
        for name, data in zip(names, self.files.read([Range(name) for name in names]), strict=True):
            yield _missing(name) if isinstance(data, FileNotFoundError) else data

    def plain(self, chunk: Coordinates) -> Range | Exception:
        """See `Places`."""
        return Range(self.key(chunk))


def _missing(name: str) -> MissingPixelsError:
    return MissingPixelsError(f"chunk {name} was never written or is gone")


def _sharded(
    array: Any,
    sharding: ShardingCodec,
    unpacking: Unpacking,
    key: Key,
    files: Files,
    request_bytes: float,
    fill: float | None,
) -> Chunked | None:
    index = sharding.index_codecs
    checked = len(index) == 2 and isinstance(index[1], Crc32cCodec)
    plain = isinstance(index[0], BytesCodec) and getattr(index[0].endian, "value", "") == "little"
    if not plain or not (checked or len(index) == 1) or unpacking.dtype.kind not in "iuf":
        return None
    counts = tuple(s // c for s, c in zip(array.shards, unpacking.shape, strict=True))
    at_end = sharding.index_location.value == "end"
    most = 16 * request_bytes if request_bytes > LOCAL_REQUEST_BYTES else 4 * 1024 * 1024
    places = Shards(files, key, counts, at_end, checked, request_bytes, most)
    return Chunked(tuple(array.shape), unpacking, places, fill)


@dataclass(frozen=True)
class Shards:
    """Files of many chunks. counts: chunks of a shard per axis; checked: whether the index ends
    with a checksum; request_bytes: what a request costs, as bytes read in the same time;
    most_bytes: that are read at once: of a local file few enough to be in the cache when they are
    unpacked, of a store as many as its requests are worth that are under way together."""

    files: Files
    key: Key
    counts: tuple[int, ...]
    index_at_end: bool
    checked: bool
    request_bytes: float
    most_bytes: float

    def packed(self, chunks: Sequence[Coordinates]) -> Iterator[Buffer | Exception]:
        """See `Places`. Chunks of a shard that lie near one another share a request; the indices
        of many shards, and then the chunks of all of them, are asked for together."""
        groups = [(self.key(at), list(some)) for at, some in groupby(chunks, self._shard_of)]
        most = int(max(1, min(len(groups), self.most_bytes // self._index_bytes)))
        for begin in range(0, len(groups), most):
            yield from self._of_shards(groups[begin : begin + most])

    def plain(self, chunk: Coordinates) -> Range | Exception:
        """See `Places`."""
        return UnreadableError(f"chunk {chunk} lies in a shard")

    def _shard_of(self, chunk: Coordinates) -> Coordinates:
        return tuple(at // count for at, count in zip(chunk, self.counts, strict=True))

    @property
    def _index_bytes(self) -> int:
        return prod(self.counts) * 16 + (_CRC_BYTES if self.checked else 0)

    def _of_shards(
        self, groups: Sequence[tuple[str, list[Coordinates]]]
    ) -> Iterator[Buffer | Exception]:
        """Chunks by the shards that they lie in."""
        parts: list[_Part | Exception] = []
        blocks: list[Range] = []
        indices = self._indices([name for name, _ in groups])
        for (name, chunks), index in zip(groups, indices, strict=True):
            if isinstance(index, Exception):
                parts += [index] * len(chunks)
            else:
                parts += self._located(name, chunks, index, blocks)
        yield from _Blocks(self.files, blocks, parts, self.most_bytes).all()

    def _located(
        self,
        name: str,
        chunks: Sequence[Coordinates],
        index: np.ndarray[Any, Any],
        blocks: list[Range],
    ) -> Iterator[_Part | Exception]:
        """Where each chunk of a shard is; the requests that it takes are added to `blocks`."""
        inner = [tuple(a % c for a, c in zip(at, self.counts, strict=True)) for at in chunks]
        spans = index[tuple(np.array(inner).T)]
        written = (spans != _UNWRITTEN).any(axis=1)
        starts = spans[written, 0].astype(np.int64)
        stops = starts + spans[written, 1].astype(np.int64)
        merged, member = merge_ranges(starts, stops, self.request_bytes, self.most_bytes)
        numbers = (member + len(blocks)).tolist()
        blocks += [Range(name, low, high) for low, high in merged]
        places = zip(numbers, starts.tolist(), stops.tolist(), strict=True)
        for at, there in zip(chunks, written.tolist(), strict=True):
            yield _Part(*next(places)) if there else _missing(f"{at} of {name}")

    def _indices(self, names: Sequence[str]) -> Iterator[np.ndarray[Any, Any] | Exception]:
        """(offset, length) of every chunk of each shard."""
        length = self._index_bytes
        span = (-length, None) if self.index_at_end else (0, length)
        found = self.files.read([Range(name, *span) for name in names])
        for name, data in zip(names, found, strict=True):
            yield self._index(name, data)

    def _index(self, name: str, data: Buffer | Exception) -> np.ndarray[Any, Any] | Exception:
        if isinstance(data, FileNotFoundError):
            return _missing(name)
        if isinstance(data, Exception):
            return data
        if len(data) != self._index_bytes:
            return UnreadableError(f"{name}: ends inside its index")
        try:
            body = check_crc32c(data) if self.checked else data
        except UnreadableError as error:
            return UnreadableError(f"index of shard {name}: {error}")
        return np.frombuffer(body, "<u8").reshape(*self.counts, 2)


@dataclass(frozen=True)
class _Part:
    """Where a chunk is: bytes [start, stop) of a file, inside the block of that number."""

    block: int
    start: int
    stop: int


class _Blocks:
    """Parts of files in the order of the chunks; blocks are read some at once, `most_bytes` or a
    single one, when the first of them is asked for, and let go with the last of their parts."""

    def __init__(
        self,
        files: Files,
        blocks: Sequence[Range],
        parts: Sequence[_Part | Exception],
        most_bytes: float,
    ) -> None:
        self._files, self._blocks, self._parts, self._most = files, blocks, parts, most_bytes
        self._left = Counter(part.block for part in parts if isinstance(part, _Part))
        self._order = list(self._left)  # that in which they are asked for
        self._read: dict[int, Buffer | Exception] = {}

    def all(self) -> Iterator[Buffer | Exception]:
        """Bytes of every part, or the fault in its place."""
        for part in self._parts:
            yield self._bytes(part) if isinstance(part, _Part) else part

    def _bytes(self, part: _Part) -> Buffer | Exception:
        if part.block not in self._read:
            self._read_some()
        data, whole = self._read[part.block], self._blocks[part.block]
        self._left[part.block] -= 1
        if not self._left[part.block]:
            del self._read[part.block]
        if not isinstance(data, Exception):
            return memoryview(data)[part.start - whole.start : part.stop - whole.start]
        alone = Range(whole.name, part.start, part.stop)
        return data if alone == whole else next(self._files.read([alone]))

    def _read_some(self) -> None:
        """Read the blocks that are asked for next."""
        size, some = 0, list[int]()
        for number in self._order:
            length = (self._blocks[number].stop or 0) - self._blocks[number].start
            if some and size + length > self._most:
                break
            some.append(number)
            size += length
        del self._order[: len(some)]
        found = self._files.read([self._blocks[number] for number in some])
        self._read.update(zip(some, found, strict=True))
