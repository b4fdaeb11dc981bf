"""Sparse reads of Zarr: the plan against both fixed choices, "whole chunk" and "one object".

The stores hold single objects in shards, or plain chunks of many objects. A selection of one in k
objects is read by the reader's plan; with a price of requests so high that it reads whole chunks;
and with none, so that each object is a request. Local files come from the page cache; the remote
store is local too, with a rest per round of requests, which go out together, and per byte: what an
object store costs (20 ms, 100 MB/s). A whole chunk is read and unpacked with all of its objects.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import zarr
from jaxtyping import Int64

from lenspipe.cutouts.chunks.chunked import packed_pieces, plain_pieces
from lenspipe.cutouts.chunks.sparse import LOCAL_REQUEST_BYTES, REMOTE_REQUEST_BYTES
from lenspipe.cutouts.chunks.zarrchunks import Shards, chunked
from lenspipe.cutouts.files.ranges import Buffer, Files, LocalFiles, Range

LATENCY_S = 0.02
TOGETHER = 128  # requests that fsspec has under way at once
DENSITIES = (1, 100, 1000)
_SHARD = 1024
_WHOLE = 1e15


@dataclass
class CountedFiles:
    """Files with a rest for each round of requests; counts rounds, requests and bytes."""

    inner: Files
    latency_s: float
    rounds: int = 0
    requests: int = 0
    bytes: int = 0

    def read(self, ranges: Sequence[Range]) -> Iterator[Buffer | Exception]:
        """See `Files`."""
        rounds = -(-len(ranges) // TOGETHER)
        self.rounds += rounds
        time.sleep(self.latency_s * rounds)
        for data in self.inner.read(ranges):
            size = 0 if isinstance(data, Exception) else len(data)
            time.sleep(self.latency_s * size / REMOTE_REQUEST_BYTES)
            self.requests += 1
            self.bytes += size
            yield data


@dataclass(frozen=True)
class Reading:
    """One choice on one selection."""

    seconds: float
    rounds: int
    requests: int
    bytes: int


def measure(
    objects: int = 8192, rounds: int = 3, latency_s: float = LATENCY_S, side: int = 48
) -> dict[str, dict[str, float]]:
    """Store, density and choice -> seconds (median), rounds, requests and bytes."""
    found = {}
    with TemporaryDirectory(prefix="lenspipe-bench-") as folder:
        _write(Path(folder, "a.zarr"), (objects, 3, side, side))
        for name in ("sharded", "plain"):
            for place, latency in (("local", 0.0), ("remote", latency_s)):
                for density in DENSITIES:
                    wanted = selection(objects, density)
                    for choice, price in prices(place).items():
                        turns = [read(folder, name, wanted, price, latency) for _ in range(rounds)]
                        found[f"{name}_{place}_1_in_{density}_{choice}"] = {
                            "seconds": median(turn.seconds for turn in turns),
                            "rounds": turns[0].rounds,
                            "requests": turns[0].requests,
                            "bytes": turns[0].bytes,
                        }
    return found


def prices(place: str) -> dict[str, float]:
    """What a request costs, in bytes, by choice."""
    planned = LOCAL_REQUEST_BYTES if place == "local" else REMOTE_REQUEST_BYTES
    return {"plan": planned, "whole_chunk": _WHOLE, "one_object": -1.0}


def selection(objects: int, density: int) -> Int64[np.ndarray, " k"]:
    """One in `density` objects, anywhere."""
    rng = np.random.default_rng(density)
    chosen = rng.choice(objects, max(1, objects // density), replace=False)
    return np.sort(chosen).astype(np.int64)


def read(
    folder: str, name: str, wanted: Int64[np.ndarray, " k"], price: float, latency_s: float
) -> Reading:
    """Read a selection once. Its pixels are checked to be as many as were asked for."""
    files = CountedFiles(LocalFiles(f"{folder}/a.zarr"), latency_s)
    array = chunked(zarr.open_group(f"{folder}/a.zarr", mode="r")[name], files, price, False)
    if array is None:
        raise RuntimeError("the store is packed in a way that only zarr-python knows")
    if isinstance(array.places, Shards):
        most = np.inf if price in (_WHOLE, REMOTE_REQUEST_BYTES) else array.places.most_bytes
        array = replace(array, places=replace(array.places, most_bytes=most))
    region = tuple(slice(0, length) for length in array.shape[1:])
    asked = _every(wanted, _SHARD, array.shape[0]) if price == _WHOLE else wanted
    began = time.perf_counter()
    pieces = (
        packed_pieces([array], asked, region, 0.0)
        if isinstance(array.places, Shards)
        else plain_pieces(array, asked, region, price)
    )
    count = 0
    for piece in pieces:
        if isinstance(piece.pixels, Exception):
            raise piece.pixels
        count += piece.stop - piece.start
    seconds = time.perf_counter() - began
    if count < len(wanted):
        raise RuntimeError(f"{count} objects of {len(wanted)}")
    return Reading(seconds, files.rounds, files.requests, files.bytes)


def _every(wanted: Int64[np.ndarray, " k"], length: int, total: int) -> Int64[np.ndarray, " j"]:
    """All objects of the chunks or shards that hold some of `wanted`."""
    firsts = np.unique(wanted // length) * length
    objects = (firsts[:, None] + np.arange(length)).ravel()
    return np.asarray(objects[objects < total])


def _write(path: Path, shape: tuple[int, ...]) -> None:
    rng = np.random.default_rng(0)
    group = zarr.create_group(path)
    stored: dict[str, dict[str, Any]] = {
        "sharded": {"chunks": (1, *shape[1:]), "shards": (_SHARD, *shape[1:])},
        "plain": {"chunks": (_SHARD, *shape[1:]), "compressors": None},
    }
    for name, layout in stored.items():
        array = group.create_array(name, shape=shape, dtype="float32", **layout)
        for start in range(0, shape[0], _SHARD):
            stop = min(start + _SHARD, shape[0])
            array[start:stop] = rng.normal(size=(stop - start, *shape[1:])).astype(np.float32)
