"""Cutouts in HDF5 files: one dataset (n, band, y, x), sparse reads planned by chunk.

cutouts:
  reader: hdf5
  path: ps1_grizy_70px.h5        # a file, a glob or a URL
  dataset: images
  bands: [g, r, i, z, y]         # their order in the file
  row: row                       # or `ids: name`, an array of identifiers in the file
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import fsspec
import h5py
import numpy as np
from jaxtyping import Int64

from lenspipe.cutouts.base import Reader, ReaderOptions
from lenspipe.cutouts.faults import UnreadableError
from lenspipe.cutouts.paths import expand
from lenspipe.cutouts.sparse import (
    LOCAL_REQUEST_BYTES,
    REMOTE_REQUEST_BYTES,
    Layout,
    Run,
    plan_runs,
)
from lenspipe.cutouts.stacks import (
    STORAGE_ERRORS,
    Piece,
    Region,
    StackOptions,
    StackReader,
    check_band_order,
)
from lenspipe.errors import InputError


class Options(StackOptions):
    """See the module. path: a file or a glob; dataset: the array's name in each file."""

    path: str
    dataset: str = "images"


@contextmanager
def _open(path: str) -> Iterator[Any]:
    if "://" in path:
        with fsspec.open(path, "rb") as remote, h5py.File(remote, "r") as file:
            yield file
    else:
        with h5py.File(path, "r") as file:
            yield file


class _Hdf5Stack:
    """One file; opened for each call, so that no handle outlives a fault."""

    def __init__(self, path: str, options: Options) -> None:
        self.path, self._dataset = path, options.dataset
        self._request_bytes = REMOTE_REQUEST_BYTES if "://" in path else LOCAL_REQUEST_BYTES
        with _open(path) as file:
            data = file.get(options.dataset)
            if not isinstance(data, h5py.Dataset) or data.ndim != 4:
                raise InputError(
                    f"cutouts.dataset: {path}",
                    f"an array {options.dataset} (n, band, y, x)",
                    getattr(data, "shape", "none"),
                )
            check_band_order(path, data.shape[1], data.attrs.get("bands"), options.bands)
            self.shape = data.shape
            self.stored_bytes = int(data.id.get_storage_size())
            scale = data.attrs.get("pixel_scale_arcsec")
            self.pixel_scale_arcsec = None if scale is None else float(scale)
            self.layout = _layout(data)

    def read_ids(self, name: str) -> list[Any]:
        with _open(self.path) as file:
            if not isinstance(file.get(name), h5py.Dataset):
                raise InputError(f"cutouts.ids: {self.path}", f"an array {name}", "none")
            return list(file[name][...].tolist())

    def pieces(self, wanted: Int64[np.ndarray, " k"], region: Region) -> Iterator[Piece]:
        runs = plan_runs(wanted, self.layout, self._request_bytes)
        with _open(self.path) as file:
            data = file[self._dataset]
            if data.shape != self.shape:
                raise UnreadableError(f"the array changed from {self.shape} to {data.shape}")
            for run in runs:
                yield from self._run(data, run, wanted, region)

    def _run(
        self, data: Any, run: Run, wanted: Int64[np.ndarray, " k"], region: Region
    ) -> Iterator[Piece]:
        """One request; where it fails, one per granule, so that only the damaged one is lost."""
        start, stop = np.searchsorted(wanted, [run.start, run.stop]).tolist()
        if start == stop:
            return
        low, high = min(region.bands), max(region.bands) + 1
        try:
            block = data[run.start : run.stop, low:high, region.y, region.x]
        except STORAGE_ERRORS as error:
            granule = self.layout.granule
            if run.stop - run.start <= granule:
                yield Piece(start, stop, UnreadableError(str(error)), 0)
                return
            for first in range(run.start, run.stop, granule):
                part = Run(first, min(first + granule, run.stop))
                yield from self._run(data, part, wanted, region)
            return
        objects = block if stop - start == len(block) else block[wanted[start:stop] - run.start]
        used = np.array(region.bands, np.int64) - low
        pixels = objects if used.tolist() == list(range(high - low)) else objects[:, used]
        yield Piece(start, stop, pixels, int((run.stop - run.start) * self.layout.object_bytes))


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
