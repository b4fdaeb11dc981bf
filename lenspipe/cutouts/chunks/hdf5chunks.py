"""Where the bytes of an HDF5 dataset are in its file, so that they can be read without HDF5."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import h5py
import numpy as np
from jaxtyping import Bool, Int64

from lenspipe.cutouts.chunks.chunked import Chunked, Coordinates
from lenspipe.cutouts.chunks.unpack import Unpacking, hdf5_steps
from lenspipe.cutouts.faults import READ_ERRORS, MissingPixelsError, UnreadableError
from lenspipe.cutouts.files.ranges import Buffer, Files, LocalFiles, Range

# A step of the walk through HDF5's index of chunks takes 40 ns, in which a file in memory hands out
# about so many bytes.
_WALK_BYTES = 128
_UNWRITTEN = "chunk storage is not allocated"  # HDF5's words


class LeftToLibraryError(UnreadableError):
    """A chunk that only HDF5 itself can unpack."""


def chunked(data: Any, path: str, sparse: bool) -> Chunked | None:
    """How to read a dataset (n, band, y, x) of a local file; None where that is left to HDF5: a
    type or a filter that is not known here, a user block, raw data in other files."""
    kind, plan = data.dtype, data.id.get_create_plist()
    native = kind.kind in "iuf" and data.id.get_type().equal(h5py.h5t.py_create(kind))
    if not native or data.file.userblock_size or plan.get_external_count():
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
    """Chunks as HDF5's index of them says. filters: how many steps unpack them.

    HDF5 finds the bytes of a chunk in its tree, but tells their place after a walk through all of
    the index: chunks are taken from it, and their places are asked for where that fails.
    """

    files: Files
    name: str
    data: Any
    filters: int

    def packed(self, chunks: Sequence[Coordinates]) -> Iterator[Buffer | Exception]:
        """See `Places`."""
        descriptor = self.data.file.id.get_vfd_handle()
        opened = _state(descriptor)
        # Of a dataset without any chunk HDF5 takes a length from where nothing was set.
        read = self._bytes if self.data.id.get_storage_size() else self._bytes_at_place
        for chunk in chunks:
            data = read(chunk)
            changed = _state(descriptor) != opened
            yield UnreadableError("the file changed while it was read") if changed else data

    def plain(self, chunk: Coordinates) -> Range | Exception:
        """See `Places`."""
        return self._place(chunk)

    def _bytes(self, chunk: Coordinates) -> Buffer | Exception:
        try:
            mask, data = self.data.id.read_direct_chunk(self._corner(chunk))
        except READ_ERRORS as error:
            if _UNWRITTEN in str(error):
                return _never_written(chunk)
            return self._bytes_at_place(chunk)  # tells what is wrong with the file or its disk
        return self._packed_apart(chunk) if mask and self.filters else data

    def _bytes_at_place(self, chunk: Coordinates) -> Buffer | Exception:
        place = self._place(chunk)
        return place if isinstance(place, Exception) else next(self.files.read([place]))

    def _corner(self, chunk: Coordinates) -> Coordinates:
        return tuple(at * length for at, length in zip(chunk, self.data.chunks, strict=True))

    def _place(self, chunk: Coordinates) -> Range | Exception:
        info = self.data.id.get_chunk_info_by_coord(self._corner(chunk))
        if info.byte_offset is None:
            return _never_written(chunk)
        if info.filter_mask and self.filters:
            return self._packed_apart(chunk)
        return Range(self.name, info.byte_offset, info.byte_offset + info.size)

    @staticmethod
    def _packed_apart(chunk: Coordinates) -> LeftToLibraryError:
        """HDF5 skips a filter that gains nothing."""
        return LeftToLibraryError(f"chunk {chunk} is packed in a way of its own")


def _never_written(chunk: Coordinates) -> MissingPixelsError:
    return MissingPixelsError(f"chunk {chunk} was never written")


def _state(descriptor: int) -> tuple[int, int]:
    now = os.fstat(descriptor)
    return now.st_size, now.st_mtime_ns


def places_are_cheap(data: Any) -> bool:
    """Whether a chunk's place is found sooner than the whole chunk is read."""
    if data.chunks is None:
        return True
    walk: int = _count(data) * _WALK_BYTES
    whole: int = prod(data.chunks) * data.dtype.itemsize
    return walk <= whole


def _count(data: Any) -> int:
    """Chunks of a dataset, written or not."""
    return prod(-(-n // length) for n, length in zip(data.shape, data.chunks, strict=True))


def unwritten(data: Any, wanted: Int64[np.ndarray, " k"], granule: int) -> Bool[np.ndarray, " k"]:
    """Objects of which a chunk was never written."""
    if data.chunks is None:
        return np.full(len(wanted), not data.id.get_storage_size() and data.nbytes > 0)
    if data.id.get_num_chunks() == _count(data):
        return np.zeros(len(wanted), bool)
    numbers, member = np.unique(wanted // granule, return_inverse=True)
    written = dict.fromkeys((numbers * granule).tolist(), 0)

    def note(chunk: Any) -> None:
        if chunk.chunk_offset[0] in written:
            written[chunk.chunk_offset[0]] += 1

    data.id.chunk_iter(note)
    of_each = _count(data) // -(-data.shape[0] // data.chunks[0])
    gone = np.array([count < of_each for count in written.values()], bool)
    return np.asarray(gone[member])
