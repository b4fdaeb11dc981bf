"""Chunks that unpack to other lengths than they must."""

from __future__ import annotations

import gzip
import struct
import tracemalloc
import zlib
from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from numcodecs import Blosc, Zstd  # type: ignore[import-untyped]  # has no stubs
from zarr.codecs import BloscCodec, BytesCodec, Crc32cCodec, GzipCodec, ZstdCodec

from lenspipe.cutouts.chunks.unpack import Unpacking, hdf5_steps, unpack_all, zarr_steps
from lenspipe.cutouts.faults import UnreadableError

PIXELS = np.random.default_rng(3).normal(size=(1, 1, 8, 8)).astype("f4")
LARGE = 64 * 1024 * 1024


def _unpacking(codec: Any) -> Unpacking:
    steps = hdf5_steps([(1, (1,))]) if codec is None else zarr_steps([BytesCodec(), codec])
    assert steps is not None
    return Unpacking(steps, PIXELS.dtype, PIXELS.shape)


def _streamed(data: bytes) -> bytes:
    """A frame of zstd that does not state its length."""
    sink = pa.BufferOutputStream()
    with pa.CompressedOutputStream(sink, "zstd") as stream:
        stream.write(data)
    return bytes(sink.getvalue())


PACKINGS: dict[str, tuple[Any, Callable[[bytes], bytes]]] = {
    "deflate": (None, zlib.compress),
    "gzip": (GzipCodec(), gzip.compress),
    "zstd": (ZstdCodec(), Zstd().encode),
    "zstd without a length": (ZstdCodec(), _streamed),
    "blosc": (BloscCodec(), Blosc().encode),
}


@pytest.mark.parametrize("name", PACKINGS)
def test_a_chunk_that_becomes_too_much_is_refused_before_the_memory_is_taken(name: str) -> None:
    codec, pack = PACKINGS[name]
    unpacking = _unpacking(codec)
    bomb = pack(bytes(LARGE))
    tracemalloc.start()
    try:
        sound = np.frombuffer(pack(PIXELS.tobytes()), np.uint8)  # as files give it
        bad, good = unpack_all(unpacking, [bomb, sound])
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert isinstance(bad, UnreadableError)
    assert "refused" in str(bad)
    np.testing.assert_array_equal(good, PIXELS)
    assert peak < LARGE / 4


@pytest.mark.parametrize("size", [2**60, 2**34, 2**20])
def test_a_frame_of_zstd_that_claims_too_much_is_a_fault_of_its_file(size: int) -> None:
    frame = b"\x28\xb5\x2f\xfd\xe0" + struct.pack("<Q", size) + b"\x01\x00\x00"
    (found,) = unpack_all(_unpacking(ZstdCodec()), [frame])
    assert isinstance(found, UnreadableError)


@pytest.mark.parametrize("length", [1, 255, 256, 257, 65_791, 65_792, 100_000])
def test_every_length_that_zstd_states_is_read(length: int) -> None:
    data = np.random.default_rng(length).bytes(length)
    steps = zarr_steps([BytesCodec(), ZstdCodec(), Crc32cCodec()])
    assert steps is not None
    unpacking = Unpacking(steps[1:], np.dtype("u1"), (length,))
    assert unpacking(Zstd().encode(data)).tobytes() == data
    assert unpacking(_streamed(data)).tobytes() == data


@pytest.mark.parametrize("name", PACKINGS)
def test_packed_bytes_that_end_early_are_unreadable(name: str) -> None:
    codec, pack = PACKINGS[name]
    whole = pack(PIXELS.tobytes())
    for cut in (0, 3, len(whole) // 2, len(whole) - 1):
        part = np.frombuffer(whole[:cut], np.uint8)  # as files give it
        (found,) = unpack_all(_unpacking(codec), [part])
        assert isinstance(found, UnreadableError), cut
