"""Cutouts in a Zarr store (v2 or v3, sharded or not), sparse reads planned by chunk and shard.

cutouts:
  reader: zarr
  path: stamps.zarr              # a folder or a URL, the root of the store
  array: images                  # (n, band, y, x) in the order of `bands`
  bands: [g, r, i]
  row: row                       # or `ids: object_id`, an array in the store

arrays: {g: g, r: r, i: i}       # instead of `array`: one array (n, y, x) per band
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import Any
from warnings import catch_warnings, simplefilter

import numpy as np
import zarr
from jaxtyping import Int64
from pydantic import model_validator
from zarr.errors import ZarrUserWarning

from lenspipe.config import is_url, resolve
from lenspipe.cutouts.base import Reader, ReaderOptions
from lenspipe.cutouts.chunks.chunked import Chunked, Piece, packed_pieces, plain_pieces
from lenspipe.cutouts.chunks.sparse import (
    LOCAL_REQUEST_BYTES,
    REMOTE_REQUEST_BYTES,
    Layout,
    Run,
    batches,
    split_dense,
)
from lenspipe.cutouts.chunks.zarrchunks import Shards, chunked
from lenspipe.cutouts.faults import (
    READ_ERRORS,
    MissingPixelsError,
    UnreadableError,
    raise_if_of_the_process,
)
from lenspipe.cutouts.files.list_files import listed_below, merged
from lenspipe.cutouts.files.listing import Listing
from lenspipe.cutouts.files.ranges import Range, files_of
from lenspipe.cutouts.files.storedfile import require_regular
from lenspipe.cutouts.geometry import as_slice, consecutive_runs
from lenspipe.cutouts.stacks import (
    Region,
    StackOptions,
    StackReader,
    check_band_order,
    require_ids,
    require_listable,
)
from lenspipe.errors import InputError

# Pixels of one request of scattered objects: large enough to keep many reads in flight, small
# enough to stay in a fraction of what a shard's pixels take.
_BATCH_BYTES = 32 * 1024 * 1024

# What zarr-python spends on finding and unpacking one chunk of a shard, as the bytes it could
# copy in that time, and what a request of its own adds (measured: 0.1 and 0.3 ms, 2 GB/s).
_DECODE_BYTES = 200 * 1024
_LOCAL_CHUNK_REQUEST_BYTES = 600 * 1024


class Options(StackOptions):
    """See the module; exactly one of `array` and `arrays`. The default is `array: images`."""

    array: str | None = None
    arrays: dict[str, str] | None = None

    @model_validator(mode="after")
    def _one_layout(self) -> Options:
        if self.array is not None and self.arrays is not None:
            raise ValueError("expected exactly one of array, arrays")
        if self.arrays is not None and set(self.arrays) != set(self.bands):
            raise ValueError(f"expected arrays for bands {', '.join(self.bands)}")
        return self

    @property
    def names(self) -> dict[str, str]:
        """Band -> its array; the first band -> the one array, where that holds all bands."""
        return self.arrays or {self.bands[0]: self.array or "images"}


class _ZarrStack:
    """One store. Arrays of four axes hold all bands, those of three one band each."""

    def __init__(self, path: str, options: Options) -> None:
        self.path = path
        self._request_bytes = REMOTE_REQUEST_BYTES if is_url(path) else _LOCAL_CHUNK_REQUEST_BYTES
        require_regular_metadata(path)
        self._root = zarr.open_group(path, mode="r")
        for name in options.names.values():
            require_regular_metadata(f"{path}/{name}")
        ndim = 3 if options.arrays else 4
        ordered = [options.names[band] for band in options.bands if band in options.names]
        self._arrays = [_array(self._root, path, name, ndim) for name in ordered]
        first = self._arrays[0]
        for name, array in zip(ordered, self._arrays, strict=True):
            if array.shape != first.shape:
                raise InputError(f"cutouts.arrays: {path}/{name}", first.shape, array.shape)
        count = len(ordered) if options.arrays else first.shape[1]
        self.shape = (first.shape[0], count, *first.shape[-2:])
        if not options.arrays:
            check_band_order(path, count, first.attrs.get("bands"), options.bands)
        scale = first.attrs.get("pixel_scale_arcsec", self._root.attrs.get("pixel_scale_arcsec"))
        self.pixel_scale_arcsec = None if scale is None else float(scale)
        self.files = list_files(path, options)
        self.stored_bytes = _stored_bytes(self.files, path, self._arrays)
        self.layout = _layout(first, self.stored_bytes)
        self._sparse = options.sparse
        self._files = files_of(path)
        self._chunked = self._known_chunks(
            LOCAL_REQUEST_BYTES if not is_url(path) else REMOTE_REQUEST_BYTES
        )

    def read_ids(self, name: str) -> list[Any]:
        found = _array(self._root, self.path, name, 1)
        require_listable(f"cutouts.ids: {self.path}", found.shape[0])
        require_ids(f"cutouts.ids: {self.path}", found.dtype)
        return list(np.asarray(found[...]).tolist())

    def _known_chunks(self, request_bytes: float) -> tuple[Chunked, ...] | None:
        """The arrays as they can be read here; None where that is left to zarr-python."""
        found = [chunked(a, self._files, request_bytes, self._sparse) for a in self._arrays]
        known = tuple(array for array in found if array is not None)
        alike = {(a.granule, a.unpacking.shape, a.unpacking.dtype) for a in known}
        return known if len(known) == len(found) and len(alike) == 1 else None

    def pieces(self, wanted: Int64[np.ndarray, " k"], region: Region) -> Iterator[Piece]:
        if self._chunked is None:
            yield from self._library_pieces(wanted, region)
            return
        stored = self.layout.object_bytes
        if self._chunked[0].shape[1:] == self.shape[2:]:
            arrays = [self._chunked[band] for band in region.bands]
            yield from packed_pieces(arrays, wanted, (region.y, region.x), stored)
            return
        array = self._chunked[0]
        square = (region.span, region.y, region.x)
        if array.by_objects and not isinstance(array.places, Shards):
            price = REMOTE_REQUEST_BYTES if is_url(self.path) else LOCAL_REQUEST_BYTES
            found = plain_pieces(array, wanted, square, price)
        else:
            found = packed_pieces([array], wanted, square, stored)
        for piece in found:
            yield region.of_span(piece)

    def _library_pieces(self, wanted: Int64[np.ndarray, " k"], region: Region) -> Iterator[Piece]:
        """By zarr-python, which fills in chunks that are not there: those are looked for."""
        if not self._sparse:
            gone = self._gone(wanted)
            for number in np.flatnonzero(gone).tolist():
                fault = MissingPixelsError("a chunk of it was never written or is gone")
                yield Piece(number, number + 1, fault, 0)
            for piece in self._by_library(wanted[~gone], region):
                kept = np.flatnonzero(~gone)[piece.start : piece.stop]
                for start, stop in consecutive_runs(kept):
                    pixels = piece.pixels
                    if not isinstance(pixels, Exception):
                        pixels = pixels[start:stop]
                    yield Piece(int(kept[start]), int(kept[stop - 1]) + 1, pixels, piece.bytes_read)
        else:
            yield from self._by_library(wanted, region)

    def _gone(self, wanted: Int64[np.ndarray, " k"]) -> np.ndarray[Any, np.dtype[np.bool_]]:
        """Objects of which a chunk (or the shard that would hold it) has no file."""
        group = self.layout.group
        numbers, member = np.unique(wanted // group, return_inverse=True)
        gone = np.zeros(len(numbers), bool)
        for array in self._arrays:
            lengths = array.shards or array.chunks
            counts = [-(-n // length) for n, length in zip(array.shape, lengths, strict=True)]
            for corner in np.ndindex(*counts[1:]):
                keys = [
                    Range(f"{array.path}/{array.metadata.encode_chunk_key((n, *corner))}", 0, 0)
                    for n in numbers.tolist()
                ]
                found = self._files.read(keys)
                gone |= [isinstance(data, FileNotFoundError) for data in found]
        return np.asarray(gone[member])

    def _by_library(self, wanted: Int64[np.ndarray, " k"], region: Region) -> Iterator[Piece]:
        split = split_dense(wanted, self.layout, self._request_bytes, _DECODE_BYTES)
        for run in split.dense:
            inside = wanted[slice(*np.searchsorted(wanted, [run.start, run.stop]))]
            yield from self._read(inside, wanted, region, run)
        object_bytes = int(np.prod(self.shape[1:])) * 4
        for part in batches(
            split.sparse, self.layout.granule, max(1, _BATCH_BYTES // object_bytes)
        ):
            yield from self._read(part, wanted, region, None)

    def _read(
        self,
        objects: Int64[np.ndarray, " j"],
        wanted: Int64[np.ndarray, " k"],
        region: Region,
        run: Run | None,
    ) -> Iterator[Piece]:
        """Some objects in one request: a whole group, or only their chunks. Where that fails, one
        request per granule, so that only the damaged one is lost."""
        bounds = np.searchsorted(wanted, objects)
        granules = objects // self.layout.granule
        try:
            pixels, amount = self._pixels(objects, region, run)
        except READ_ERRORS as error:
            raise_if_of_the_process(error)
            for granule in np.unique(granules).tolist():
                part = objects[granules == granule]
                if len(part) < len(objects) or run is not None:
                    yield from self._read(part, wanted, region, None)
                else:
                    text = f"{type(error).__name__}: {error}"
                    for number in bounds.tolist():
                        yield Piece(number, number + 1, UnreadableError(text), 0)
            return
        # Dense groups and sparse objects alternate, so the objects may lie apart in `wanted`.
        for start, stop in consecutive_runs(bounds):
            part = pixels[start:stop]
            share = amount * (stop - start) // len(bounds)
            yield Piece(int(bounds[start]), int(bounds[stop - 1]) + 1, part, share)

    def _pixels(
        self, objects: Int64[np.ndarray, " j"], region: Region, run: Run | None
    ) -> tuple[np.ndarray[Any, Any], int]:
        where: Any = slice(run.start, run.stop) if run else as_slice(objects)
        if len(self._arrays) > 1 or self._arrays[0].ndim == 3:
            stacked = [_select(self._arrays[b], (where, region.y, region.x)) for b in region.bands]
            pixels = np.stack(stacked, axis=1)
        else:
            low, high = min(region.bands), max(region.bands) + 1
            block = _select(self._arrays[0], (where, slice(low, high), region.y, region.x))
            used = [band - low for band in region.bands]
            pixels = block if used == list(range(high - low)) else block[:, used]
        granules = len(np.unique(objects // self.layout.granule))
        read = run.stop - run.start if run else granules * self.layout.granule
        return pixels[as_slice(objects - run.start)] if run else pixels, int(
            read * self.layout.object_bytes
        )


_METADATA = ("zarr.json", ".zarray", ".zgroup", ".zattrs", ".zmetadata")


def require_regular_metadata(path: str) -> None:
    """UnreadableError where a metadata file is special: zarr-python would wait for a FIFO."""
    for name in _METADATA:
        with suppress(FileNotFoundError, NotADirectoryError):
            require_regular(f"{path}/{name}")


def _array(root: Any, path: str, name: str, ndim: int) -> Any:
    """An array of the store. InputError where it is missing or has other axes."""
    found = root.get(name)
    if not isinstance(found, zarr.Array) or found.ndim != ndim:
        axes = {1: "(n)", 3: "(n, y, x)", 4: "(n, band, y, x)"}[ndim]
        there = getattr(found, "shape", None) or _array_names(root)
        raise InputError(f"cutouts: {path}", f"an array {name} {axes}", there)
    return found


def list_files(path: str, options: Options) -> Listing:
    """The files of a store that a reader with these options looks at."""
    names = {*options.names.values(), *([options.ids] if options.ids else [])}
    return merged(listed_below(f"{path}/{name}") for name in sorted(names))


def _stored_bytes(files: Listing, path: str, arrays: Sequence[Any]) -> int:
    """Bytes of the arrays; zarr-python would ask an object store for each chunk."""
    folders = tuple(f"{path}/{array.path}/" for array in arrays)
    return sum(file.size_bytes for file in files.files if file.path.startswith(folders))


def _array_names(root: Any) -> str:
    """The arrays of a group. One whose metadata are damaged is none, of which zarr warns."""
    with catch_warnings():
        simplefilter("ignore", ZarrUserWarning)
        return ", ".join(sorted(root.array_keys())) or "no array"


def _layout(array: Any, stored_bytes: int) -> Layout:
    """Chunks, or the chunks inside shards, are the granules; chunks or shards the groups."""
    granule = int(array.chunks[0])
    group = int(array.shards[0]) if array.shards else granule
    total = int(array.shape[0])
    return Layout(total, granule, group, stored_bytes / max(total, 1))


def _select(array: Any, where: tuple[Any, ...]) -> np.ndarray[Any, Any]:
    """Pixels by slices, or by positions of objects and slices of the rest."""
    if isinstance(where[0], slice):
        return np.asarray(array[where])
    return np.asarray(array.oindex[where])


def open_reader(options: ReaderOptions, base: str) -> Reader:
    """The reader of this module."""
    if not isinstance(options, Options):
        raise TypeError(f"expected {Options.__qualname__}, found {type(options).__qualname__}")
    path = resolve(options.path, base)
    return StackReader(
        options,
        (path,),
        lambda where: _ZarrStack(where, options),
        lambda where: list_files(where, options),
    )
