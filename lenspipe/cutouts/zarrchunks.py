"""Where the bytes of a Zarr array's chunks are: in files of their own, or inside shards.

Sharding: Zarr v3 specification, codec `sharding_indexed`: a shard ends (or begins) with an index
of (offset, length) per chunk, little-endian uint64, both 2^64 - 1 where a chunk was not written.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from math import prod
from typing import Any

import numpy as np
from jaxtyping import Int64
from zarr.codecs import BytesCodec, Crc32cCodec, ShardingCodec

from lenspipe.cutouts.chunked import Chunked, Coordinates
from lenspipe.cutouts.faults import MissingPixelsError, UnreadableError
from lenspipe.cutouts.ranges import Buffer, Files, Range
from lenspipe.cutouts.sparse import LOCAL_REQUEST_BYTES, merge_ranges
from lenspipe.cutouts.unpack import Unpacking, check_crc32c, zarr_steps, zarr_v2_steps

_UNWRITTEN = np.uint64(2**64 - 1)
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
    most_bytes: that are read at once, few enough to be in the cache when they are unpacked."""

    files: Files
    key: Key
    counts: tuple[int, ...]
    index_at_end: bool
    checked: bool
    request_bytes: float
    most_bytes: float

    def packed(self, chunks: Sequence[Coordinates]) -> Iterator[Buffer | Exception]:
        """See `Places`. Chunks of a shard that lie near one another share a request."""
        for shard, members in groupby(chunks, self._shard_of):
            yield from self._of_shard(self.key(shard), list(members))

    def plain(self, chunk: Coordinates) -> Range | Exception:
        """See `Places`."""
        return UnreadableError(f"chunk {chunk} lies in a shard")

    def _shard_of(self, chunk: Coordinates) -> Coordinates:
        return tuple(at // count for at, count in zip(chunk, self.counts, strict=True))

    def _of_shard(self, name: str, chunks: list[Coordinates]) -> Iterator[Buffer | Exception]:
        index = self._index(name)
        if isinstance(index, Exception):
            yield from [index] * len(chunks)
            return
        inner = [tuple(a % c for a, c in zip(at, self.counts, strict=True)) for at in chunks]
        spans = index[tuple(np.array(inner).T)]
        written = (spans != _UNWRITTEN).any(axis=1)
        starts = spans[:, 0].astype(np.int64)
        blocks = _Blocks(
            self, name, starts[written], (starts + spans[:, 1].astype(np.int64))[written]
        )
        for at, there in zip(chunks, written.tolist(), strict=True):
            yield blocks.next() if there else _missing(f"{at} of {name}")

    def _index(self, name: str) -> np.ndarray[Any, Any] | Exception:
        """(offset, length) of every chunk of a shard."""
        length = prod(self.counts) * 16 + (4 if self.checked else 0)
        wanted = Range(name, -length) if self.index_at_end else Range(name, 0, length)
        (data,) = self.files.read([wanted])
        if isinstance(data, FileNotFoundError):
            return _missing(name)
        if isinstance(data, Exception):
            return data
        if len(data) != length:
            return UnreadableError(f"{name}: ends inside its index")
        try:
            body = check_crc32c(data) if self.checked else data
        except UnreadableError as error:
            return UnreadableError(f"index of shard {name}: {error}")
        return np.frombuffer(body, "<u8").reshape(*self.counts, 2)


class _Blocks:
    """Parts of a shard in the order of its chunks; a block of several is read when the first of
    them is asked for and let go with the last."""

    def __init__(
        self,
        shards: Shards,
        name: str,
        starts: Int64[np.ndarray, " k"],
        stops: Int64[np.ndarray, " k"],
    ) -> None:
        self._files, self._name = shards.files, name
        self._merged, member = merge_ranges(starts, stops, shards.request_bytes, shards.most_bytes)
        self._left = np.bincount(member, minlength=len(self._merged)).tolist()
        self._parts = iter(zip(member.tolist(), starts.tolist(), stops.tolist(), strict=True))
        self._read: dict[int, Buffer | Exception] = {}

    def next(self) -> Buffer | Exception:
        """Bytes of the next chunk."""
        number, start, stop = next(self._parts)
        low, high = self._merged[number]
        if number not in self._read:
            self._read[number] = self._bytes(low, high)
        block = self._read[number]
        self._left[number] -= 1
        if not self._left[number]:
            del self._read[number]
        if not isinstance(block, Exception):
            return block[start - low : stop - low]
        return block if (low, high) == (start, stop) else self._bytes(start, stop)

    def _bytes(self, low: int, high: int) -> Buffer | Exception:
        (data,) = self._files.read([Range(self._name, low, high)])
        return data if isinstance(data, Exception) else memoryview(data)
