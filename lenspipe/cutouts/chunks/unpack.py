"""From the bytes of a chunk to its pixels: what `hdf5` and `zarr` chunks are packed with.

The steps are those of numcodecs and zlib, called with the parameters that the file states; a
packing that is not known here is left to h5py and zarr-python, which know more and are slower.

How many bytes a chunk must become is known: a few bytes that unpack to gigabytes, or say so, are
refused before the memory is taken.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache, partial
from math import prod
from os import sched_getaffinity
from typing import Any

import google_crc32c
import numpy as np
import pyarrow as pa
from numcodecs import Blosc, GZip, Shuffle, Zlib, Zstd  # type: ignore[import-untyped]  # has no stubs
from zarr.codecs import BloscCodec, BytesCodec, Crc32cCodec, GzipCodec, ZstdCodec

from lenspipe.cutouts.faults import READ_ERRORS, UnreadableError, raise_if_of_the_process
from lenspipe.cutouts.files.ranges import Buffer
from lenspipe.cutouts.files.storedfile import gunzip

_CRC_BYTES = 4
_PACKED_TWICE_BYTES = 4096  # what is packed twice may have grown by the inner packing
_ZSTD_HEADER_BYTES, _BLOSC_HEADER_BYTES = 18, 16
_MOST_THREADS = 4
_PORTION_BYTES = 512 * 1024

Step = Callable[[Buffer, int], Buffer]  # bytes, and the most that they may become


@dataclass(frozen=True)
class Unpacking:
    """What makes pixels of the bytes of one chunk of `shape`. steps: in the order of undoing."""

    steps: tuple[Step, ...]
    dtype: np.dtype[Any]
    shape: tuple[int, ...]

    @property
    def plain(self) -> bool:
        """Whether the bytes are the pixels."""
        return not self.steps

    @property
    def bytes(self) -> int:
        """Bytes of the pixels of a chunk."""
        return prod(self.shape) * self.dtype.itemsize

    def __call__(self, data: Buffer) -> np.ndarray[Any, Any]:
        """The pixels. UnreadableError, or what a step raises, where the bytes are damaged."""
        most = 2 * self.bytes + _PACKED_TWICE_BYTES
        for step in self.steps:
            data = step(data, most)
        pixels = np.frombuffer(data, np.uint8)
        if pixels.size != self.bytes:
            raise UnreadableError(f"a chunk of {pixels.size} bytes, {self.bytes} expected")
        return pixels.view(self.dtype).reshape(self.shape)


def check_crc32c(data: Buffer) -> Buffer:
    """The bytes without the checksum at their end. UnreadableError where it does not fit."""
    found = np.frombuffer(data, np.uint8)
    body, told = found[:-_CRC_BYTES], found[-_CRC_BYTES:].tobytes()
    if google_crc32c.value(body.tobytes()).to_bytes(_CRC_BYTES, "little") != told:
        raise UnreadableError("checksum (crc32c) of a chunk does not fit its bytes")
    return body


def inflate(data: Buffer, most: int) -> Buffer:
    """Bytes packed by zlib. UnreadableError where they become more than `most` bytes, or end too
    early."""
    stream = zlib.decompressobj()
    found = stream.decompress(data, most + 1)
    _require(len(found), most)
    if not stream.eof:
        raise UnreadableError("the packed bytes of a chunk end too early")
    return found


def _require(found: int, most: int) -> None:
    if found > most:
        raise UnreadableError(f"packed bytes that become more than {most} are refused")


def _zstd(data: Buffer, most: int) -> Buffer:
    told = _zstd_told(bytes(memoryview(data)[:_ZSTD_HEADER_BYTES]))
    if told is None:
        with pa.CompressedInputStream(pa.BufferReader(pa.py_buffer(data)), "zstd") as stream:
            found = stream.read(most + 1)
        _require(len(found), most)
        return found
    _require(told, most)
    return Zstd().decode(data)


def _zstd_told(head: bytes) -> int | None:
    """Length of the content as a frame states it (RFC 8878, section 3.1.1.1); None: not stated."""
    if len(head) < 6 or head[:4] != b"\x28\xb5\x2f\xfd":
        raise UnreadableError("the bytes of a chunk are no frame of zstd")
    size_flag, single, dictionary = head[4] >> 6, head[4] >> 5 & 1, head[4] & 3
    at = 5 + (not single) + (0, 1, 2, 4)[dictionary]
    length = (single, 2, 4, 8)[size_flag]
    told = int.from_bytes(head[at : at + length], "little") + (256 if size_flag == 1 else 0)
    return told if length else None


def _blosc(data: Buffer, most: int) -> Buffer:
    head = bytes(memoryview(data)[:_BLOSC_HEADER_BYTES])
    unpacked, packed = (int.from_bytes(head[at : at + 4], "little") for at in (4, 12))
    if len(head) < _BLOSC_HEADER_BYTES or packed > len(data):  # blosc would read beyond the end
        raise UnreadableError("the packed bytes of a chunk end too early")
    _require(unpacked, most)
    return Blosc().decode(data)


def _crc32c(data: Buffer, most: int) -> Buffer:  # noqa: ARG001 - it never grows
    return check_crc32c(data)


def zarr_steps(codecs: Sequence[Any]) -> tuple[Step, ...] | None:
    """Steps for the codecs of a Zarr v3 array, None where one of them is not known here."""
    if not codecs or not isinstance(codecs[0], BytesCodec):
        return None
    known: dict[type, Step] = {
        Crc32cCodec: _crc32c,
        ZstdCodec: _zstd,
        GzipCodec: gunzip,
        BloscCodec: _blosc,
    }
    if any(type(codec) not in known for codec in codecs[1:]):
        return None
    return tuple(known[type(codec)] for codec in reversed(codecs[1:]))


def zarr_v2_steps(metadata: Any) -> tuple[Step, ...] | None:
    """The same for a Zarr v2 array."""
    if metadata.filters or metadata.order != "C":
        return None
    compressor = metadata.compressor
    known: dict[type, Step] = {Zstd: _zstd, GZip: gunzip, Zlib: inflate, Blosc: _blosc}
    others: Step = lambda data, _: compressor.decode(data)  # noqa: E731 - short
    return () if compressor is None else (known.get(type(compressor), others),)


def hdf5_steps(filters: Iterable[tuple[int, tuple[int, ...]]]) -> tuple[Step, ...] | None:
    """Steps for the filters (code, parameters) of an HDF5 dataset, None where one is not known."""
    steps: list[Step] = []
    for code, parameters in filters:
        if code == _DEFLATE:
            steps.append(inflate)
        elif code == _SHUFFLE and parameters:
            steps.append(partial(_unshuffle, parameters[0]))
        else:
            return None
    return tuple(reversed(steps))


def _unshuffle(width: int, data: Buffer, most: int) -> Buffer:  # noqa: ARG001 - it never grows
    return Shuffle(width).decode(data)


_DEFLATE, _SHUFFLE = 1, 2


def unpack_all(
    unpacking: Unpacking, packed: Iterable[Buffer | Exception]
) -> Iterator[np.ndarray[Any, Any] | Exception]:
    """Each chunk unpacked, or the fault in its place, in the order given. Packed ones are unpacked
    in threads, a few ahead of what is taken."""
    if unpacking.plain:
        yield from (_guarded(unpacking, data) for data in packed)
        return
    pool, ahead = _pool(), 2 * _threads()
    waiting: list[Any] = []
    for some in _portions(packed):
        waiting.append(pool.submit(_all_guarded, unpacking, some))
        if len(waiting) > ahead:
            yield from waiting.pop(0).result()
    for future in waiting:
        yield from future.result()


def _portions(packed: Iterable[Buffer | Exception]) -> Iterator[list[Buffer | Exception]]:
    """Chunks in lists that are worth handing to a thread."""
    some: list[Buffer | Exception] = []
    size = 0
    for data in packed:
        some.append(data)
        size += 0 if isinstance(data, Exception) else len(data)
        if size >= _PORTION_BYTES:
            yield some
            some, size = [], 0
    if some:
        yield some


def _all_guarded(
    unpacking: Unpacking, packed: Iterable[Buffer | Exception]
) -> list[np.ndarray[Any, Any] | Exception]:
    return [_guarded(unpacking, data) for data in packed]


def _guarded(unpacking: Unpacking, data: Buffer | Exception) -> np.ndarray[Any, Any] | Exception:
    if isinstance(data, Exception):
        return data
    try:
        return unpacking(data)
    except READ_ERRORS as error:
        raise_if_of_the_process(error)
        return UnreadableError(f"{type(error).__name__}: {error}")


def _threads() -> int:
    return min(_MOST_THREADS, len(sched_getaffinity(0)))


@cache
def _pool() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(_threads(), thread_name_prefix="unpack")
