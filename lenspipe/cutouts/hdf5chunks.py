"""Where the bytes of an HDF5 dataset are in its file, so that they can be read without HDF5."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import h5py
import numpy as np
from jaxtyping import Bool, Int64

from lenspipe.cutouts.chunked import Chunked, Coordinates
from lenspipe.cutouts.faults import MissingPixelsError, UnreadableError
from lenspipe.cutouts.ranges import Buffer, Files, LocalFiles, Range
from lenspipe.cutouts.unpack import Unpacking, hdf5_steps


class LeftToLibraryError(UnreadableError):
    """A chunk that only HDF5 itself can unpack."""


def chunked(data: Any, path: str, sparse: bool) -> Chunked | None:
    """How to read a dataset (n, band, y, x) of a local file; None where that is left to HDF5: a
    type or a filter that is not known here, a user block, data in other files."""
    kind, plan = data.dtype, data.id.get_create_plist()
    native = kind.kind in "iuf" and data.id.get_type().equal(h5py.h5t.py_create(kind))
    if not native or data.file.userblock_size or plan.get_external_count() or data.is_virtual:
        return None
    filters = [plan.get_filter(number) for number in range(plan.get_nfilters())]
    steps = hdf5_steps((code, values) for code, _, values, _ in filters)
    fill = float(data.fillvalue) if sparse else None
    if steps is None:
        return None
    folder, _, name = path.rpartition("/")
    files = LocalFiles(folder or ".")
    if data.chunks is None:
        offset = data.id.get_offset()
        if offset is None:  # compact, or never written
            return None
        whole = Unpacking(steps, kind, data.shape)
        return Chunked(data.shape, whole, _Contiguous(files, Range(name, int(offset))), fill)
    unpacking = Unpacking(steps, kind, data.chunks)
    return Chunked(data.shape, unpacking, _Chunks(files, name, data, len(steps)), fill)


@dataclass(frozen=True)
class _Contiguous:
    """All objects one after the other."""

    files: Files
    place: Range

    def packed(self, chunks: Sequence[Coordinates]) -> Iterator[Buffer | Exception]:
        """See `Places`; a contiguous dataset is never packed."""
        raise NotImplementedError

    def plain(self, chunk: Coordinates) -> Range | Exception:  # noqa: ARG002 - there is but one
        """See `Places`."""
        return self.place


@dataclass(frozen=True)
class _Chunks:
    """Chunks as HDF5's index of them says. filters: how many steps unpack them."""

    files: Files
    name: str
    data: Any
    filters: int

    def packed(self, chunks: Sequence[Coordinates]) -> Iterator[Buffer | Exception]:
        """See `Places`."""
        places = [self._place(chunk) for chunk in chunks]
        ranges = [place for place in places if isinstance(place, Range)]
        found = self.files.read(ranges)
        for place in places:
            yield next(found) if isinstance(place, Range) else place

    def plain(self, chunk: Coordinates) -> Range | Exception:
        """See `Places`."""
        return self._place(chunk)

    def _place(self, chunk: Coordinates) -> Range | Exception:
        lengths = self.data.chunks
        corner = tuple(at * length for at, length in zip(chunk, lengths, strict=True))
        info = self.data.id.get_chunk_info_by_coord(corner)
        if info.byte_offset is None:
            return MissingPixelsError(f"chunk {chunk} was never written")
        if info.filter_mask and self.filters:  # HDF5 skips a filter that gains nothing
            return LeftToLibraryError(f"chunk {chunk} is packed in a way of its own")
        return Range(self.name, info.byte_offset, info.byte_offset + info.size)


def unwritten(data: Any, wanted: Int64[np.ndarray, " k"], granule: int) -> Bool[np.ndarray, " k"]:
    """Objects of which a chunk was never written."""
    if data.chunks is None:
        return np.full(len(wanted), not data.id.get_storage_size() and data.nbytes > 0)
    numbers, member = np.unique(wanted // granule, return_inverse=True)
    counts = [-(-n // length) for n, length in zip(data.shape, data.chunks, strict=True)]
    gone = np.zeros(len(numbers), bool)
    for corner in np.ndindex(*counts[1:]):
        for index, number in enumerate(numbers.tolist()):
            at = tuple(a * n for a, n in zip((number, *corner), data.chunks, strict=True))
            gone[index] |= data.id.get_chunk_info_by_coord(at).byte_offset is None
    return np.asarray(gone[member])
