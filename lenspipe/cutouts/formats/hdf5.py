"""Cutouts in HDF5 files: one dataset (n, band, y, x), sparse reads planned by chunk.

cutouts:
  reader: hdf5
  path: ps1_grizy_70px.h5        # a file, a glob or a URL
  dataset: images
  bands: [g, r, i, z, y]         # their order in the file
  row: row                       # or `ids: name`, an array of identifiers in the file
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import h5py
import numpy as np
from jaxtyping import Int64

from lenspipe.cutouts.base import Reader, ReaderOptions
from lenspipe.cutouts.chunks.chunked import Chunked, Piece, packed_pieces, plain_pieces
from lenspipe.cutouts.chunks.hdf5chunks import (
    LeftToLibraryError,
    chunked,
    places_are_cheap,
    unwritten,
)
from lenspipe.cutouts.chunks.sparse import (
    LOCAL_REQUEST_BYTES,
    REMOTE_REQUEST_BYTES,
    Layout,
    Run,
    plan_runs,
)
from lenspipe.cutouts.faults import (
    READ_ERRORS,
    MissingPixelsError,
    UnreadableError,
    raise_if_of_the_process,
)
from lenspipe.cutouts.files.paths import expand
from lenspipe.cutouts.files.storedfile import fingerprint, is_remote, require_regular
from lenspipe.cutouts.geometry import consecutive_runs
from lenspipe.cutouts.stacks import (
    Region,
    StackOptions,
    StackReader,
    check_band_order,
    require_ids,
    require_listable,
)
from lenspipe.errors import InputError
from lenspipe.storage.remote import url_to_fs


class Options(StackOptions):
    """See the module. path: a file or a glob; dataset: the array's name in each file."""

    dataset: str = "images"

    @property
    def counts_files(self) -> bool:
        """See `ReaderOptions`."""
        return self.row is not None


@contextmanager
def _open(path: str) -> Iterator[Any]:
    if is_remote(path):
        fs, name = url_to_fs(path)
        with (
            fs.open(name, "rb", block_size=REMOTE_REQUEST_BYTES) as remote,  # read ahead so far
            h5py.File(remote, "r") as file,
        ):
            yield file
    else:
        require_regular(path)
        with h5py.File(path, "r") as file:
            yield file


def own_dataset(file: Any, field: str, name: str, axes: int) -> Any:
    """A dataset of the opened file. InputError where there is none of so many axes, and where its
    data are in another file: neither the places of its chunks nor the listing would be of that."""
    data = file.get(name)
    if not isinstance(data, h5py.Dataset) or data.ndim != axes:
        told = {1: "(n)", 4: "(n, band, y, x)"}[axes]
        raise InputError(field, f"an array {name} {told}", getattr(data, "shape", "none"))
    if data.is_virtual:
        expected = f"an array {name} whose data are in this file"
        raise InputError(field, expected, "a virtual one, which maps those of other files")
    if os.path.realpath(data.file.filename) != os.path.realpath(file.filename):
        expected = f"an array {name} in this file (or cutouts.path: the file that it links to)"
        raise InputError(field, expected, f"a link to {data.file.filename}")
    return data


class _Hdf5Stack:
    """One file; opened for each call, so that no handle outlives a fault."""

    def __init__(self, path: str, options: Options) -> None:
        self.path, self._dataset, self._sparse = path, options.dataset, options.sparse
        self._request_bytes = REMOTE_REQUEST_BYTES if is_remote(path) else LOCAL_REQUEST_BYTES
        self._fingerprint = fingerprint(path)
        with _open(path) as file:
            data = own_dataset(file, f"cutouts.dataset: {path}", options.dataset, 4)
            check_band_order(path, data.shape[1], data.attrs.get("bands"), options.bands)
            self.shape = data.shape
            self.stored_bytes = int(data.id.get_storage_size())
            scale = data.attrs.get("pixel_scale_arcsec")
            self.pixel_scale_arcsec = None if scale is None else float(scale)
            self.layout = _layout(data)

    def read_ids(self, name: str) -> list[Any]:
        with _open(self.path) as file:
            found = own_dataset(file, f"cutouts.ids: {self.path}", name, 1)
            require_listable(f"cutouts.ids: {self.path}", found.shape[0])
            require_ids(f"cutouts.ids: {self.path}", found.dtype)
            return list(found[...].tolist())

    def pieces(self, wanted: Int64[np.ndarray, " k"], region: Region) -> Iterator[Piece]:
        if fingerprint(self.path) != self._fingerprint:
            raise UnreadableError("the file changed since it was opened")
        with _open(self.path) as file:
            data = file[self._dataset]
            if data.shape != self.shape:
                raise UnreadableError(f"the array changed from {self.shape} to {data.shape}")
            known = None if is_remote(self.path) else chunked(data, self.path, self._sparse)
            found = (
                self._by_library(data, wanted, region)
                if known is None
                else self._known(data, known, wanted, region)
            )
            yield from found

    def _known(
        self, data: Any, array: Chunked, wanted: Int64[np.ndarray, " k"], region: Region
    ) -> Iterator[Piece]:
        """By the chunks as they are stored: they are unpacked without HDF5's lock."""
        square = (region.span, region.y, region.x)
        if array.by_objects and places_are_cheap(data):
            found = plain_pieces(array, wanted, square, self._request_bytes)
        else:
            found = packed_pieces([array], wanted, square, self.layout.object_bytes)
        for piece in found:
            if isinstance(piece.pixels, LeftToLibraryError):
                yield from self._runs(data, wanted, region, (piece.start, piece.stop))
            else:
                yield region.of_span(piece)

    def _by_library(
        self, data: Any, wanted: Int64[np.ndarray, " k"], region: Region
    ) -> Iterator[Piece]:
        """By HDF5, which fills in chunks that were never written: those are looked for."""
        if not self._sparse:
            gone = unwritten(data, wanted, self.layout.granule)
            for number in np.flatnonzero(gone).tolist():
                fault = MissingPixelsError("its chunk was never written")
                yield Piece(number, number + 1, fault, 0)
            there = np.flatnonzero(~gone)
            for start, stop in consecutive_runs(there):
                part = (int(there[start]), int(there[stop - 1]) + 1)
                yield from self._runs(data, wanted, region, part)
        else:
            yield from self._runs(data, wanted, region, (0, len(wanted)))

    def _runs(
        self,
        data: Any,
        wanted: Int64[np.ndarray, " k"],
        region: Region,
        part: tuple[int, int],
    ) -> Iterator[Piece]:
        """Objects `wanted[part]` in planned requests."""
        some = wanted[slice(*part)]
        for run in plan_runs(some, self.layout, self._request_bytes):
            for piece in self._run(data, run, some, region):
                yield replace(piece, start=piece.start + part[0], stop=piece.stop + part[0])

    def _run(
        self, data: Any, run: Run, wanted: Int64[np.ndarray, " k"], region: Region
    ) -> Iterator[Piece]:
        """One request; where it fails, one per granule, so that only the damaged one is lost."""
        start, stop = np.searchsorted(wanted, [run.start, run.stop]).tolist()
        if start == stop:
            return
        try:
            block = data[run.start : run.stop, region.span, region.y, region.x]
        except READ_ERRORS as error:
            raise_if_of_the_process(error)
            granule = self.layout.granule
            if run.stop - run.start <= granule:
                yield Piece(start, stop, UnreadableError(str(error)), 0)
                return
            for first in range(run.start, run.stop, granule):
                part = Run(first, min(first + granule, run.stop))
                yield from self._run(data, part, wanted, region)
            return
        objects = block if stop - start == len(block) else block[wanted[start:stop] - run.start]
        amount = int((run.stop - run.start) * self.layout.object_bytes)
        yield region.of_span(Piece(start, stop, objects, amount))


def _layout(data: Any) -> Layout:
    """Chunks are the granules; a contiguous array hands out single objects."""
    total = int(data.shape[0])
    granule = int(data.chunks[0]) if data.chunks else 1
    group = max(1, -(-total // granule)) * granule
    stored = data.id.get_storage_size() or data.nbytes
    return Layout(total, granule, group, stored / max(total, 1))


def open_reader(options: ReaderOptions, base: str) -> Reader:
    """The reader of this module."""
    if not isinstance(options, Options):
        raise TypeError(f"expected {Options.__qualname__}, found {type(options).__qualname__}")
    paths = expand(options.path, base)
    return StackReader(options, paths, lambda path: _Hdf5Stack(path, options))
