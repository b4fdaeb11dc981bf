"""What `hdf5` and `zarr` share: objects of equal size in arrays (n, band, y, x), found by row or
by identifier, read by a plan."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol, runtime_checkable

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from jaxtyping import Int64
from pydantic import Field, model_validator

from lenspipe.contracts import CutoutBatch, Flag, InputSpec, Reason
from lenspipe.cutouts.assemble import Collector, Plane, finish
from lenspipe.cutouts.base import BandInfo, ReaderOptions, Switch
from lenspipe.cutouts.checks import (
    check_inputs,
    native_scale,
    refuse_fits_options,
    require_bands,
)
from lenspipe.cutouts.chunks.chunked import Piece
from lenspipe.cutouts.chunks.sparse import Layout
from lenspipe.cutouts.columns import Kind, NeededColumn, carried_names
from lenspipe.cutouts.faults import READ_ERRORS, MissingPixelsError, raise_if_of_the_process
from lenspipe.cutouts.files.list_files import listed, merged
from lenspipe.cutouts.files.listing import Listing
from lenspipe.cutouts.geometry import as_slice, crop_origin
from lenspipe.cutouts.photometric import needed_columns
from lenspipe.errors import InputError
from lenspipe.storage.outage import folder_of

# A locality is at most this large, so that a contiguous file can be shared out among shards.
_LOCALITY_BYTES = 4 * 1024 * 1024

# A length is but a number in a file's metadata: no list is made of one that no memory would hold.
_MOST_LISTED = 2**31


class StackOptions(ReaderOptions):
    """How a source finds its object; exactly one of `row` and `ids`.

    path: the file or files. row: catalogue column with the object's position (from 0, counted
    through all files in the order of their names). ids: array of identifiers beside the pixels,
    matched to the catalogue column `id_column` as text. sparse: whether chunks that were never
    written hold the fill value; without it their objects are NOT_FOUND, since a chunk that was lost
    looks the same.
    """

    path: str
    bands: tuple[str, ...] = Field(min_length=1)
    row: str | None = None
    ids: str | None = None
    id_column: str = "object_id"
    sparse: Switch = False

    @model_validator(mode="after")
    def _one_way(self) -> StackOptions:
        if (self.row is None) == (self.ids is None):
            raise ValueError("expected exactly one of row, ids")
        if len(set(self.bands)) < len(self.bands):
            raise ValueError("expected each band once")
        return self

    @property
    def finder(self) -> NeededColumn:
        """The catalogue column that finds the object."""
        if self.row is not None:
            return NeededColumn("cutouts.row", self.row, Kind.WHOLE)
        return NeededColumn("cutouts.id_column", self.id_column, Kind.NAME)


@dataclass(frozen=True)
class Region:
    """What to read of each object: positions of bands in the file, and a square of pixels."""

    bands: tuple[int, ...]
    y: slice
    x: slice

    @property
    def span(self) -> slice:
        """From the first of the bands to the last, in the order of the file."""
        return slice(min(self.bands), max(self.bands) + 1)

    def of_span(self, piece: Piece) -> Piece:
        """A piece of all bands of the span, cut down to those that are wanted."""
        used = [band - self.span.start for band in self.bands]
        if isinstance(piece.pixels, Exception) or used == list(range(piece.pixels.shape[1])):
            return piece
        return replace(piece, pixels=piece.pixels[:, used])


class Stack(Protocol):
    """One file of objects."""

    path: str
    layout: Layout
    shape: tuple[int, int, int, int]
    pixel_scale_arcsec: float | None
    stored_bytes: int

    def read_ids(self, name: str) -> list[Any]:
        """The array of identifiers."""
        ...

    def pieces(self, wanted: Int64[np.ndarray, " k"], region: Region) -> Iterator[Piece]:
        """Pixels of the objects `wanted` (sorted, unique), each in exactly one piece."""
        ...


@runtime_checkable
class ListedStack(Protocol):
    """A stack of many files, which were listed as it was opened: that need not be done again."""

    files: Listing


@dataclass(frozen=True)
class Index:
    """All files of a reader. starts: position of each file's first object; broken: what was
    wrong with each file that does not open; lost_from: positions from here on are unknown."""

    stacks: tuple[Stack, ...]
    starts: Int64[np.ndarray, " f"]
    broken: tuple[str, ...]
    lost_from: int | None
    ids: Mapping[str, int]


class StackReader:
    """A cutout reader over stacks. open_stack: what opens one; list_files: what lists its files
    without opening it."""

    def __init__(
        self,
        options: StackOptions,
        paths: Sequence[str],
        open_stack: Callable[[str], Stack],
        list_files: Callable[[str], Listing] = lambda path: listed([path]),
    ) -> None:
        refuse_fits_options(options)
        self._options, self._paths, self._open = options, tuple(paths), open_stack
        self._list_files = list_files
        self._lock = threading.Lock()
        self._index: Index | None = None

    @property
    def needs(self) -> tuple[NeededColumn, ...]:
        """Catalogue columns that find the object and its zero point."""
        zero = needed_columns(self._options.zero_point, self._options.bands)
        return (self._options.finder, *zero)

    @property
    def columns(self) -> frozenset[str]:
        """See `Reader`."""
        return carried_names(self.needs)

    def describe(self) -> Mapping[str, BandInfo]:
        """Band -> scale, size, files, bytes; see `Reader`."""
        try:
            stacks = self._stacks().stacks
        except FileNotFoundError as error:
            raise InputError("cutouts.path", "a readable file", error) from error
        if not stacks:
            told = "; ".join(self._stacks().broken) or f"none that fits {self._options.path}"
            raise InputError("cutouts.path", "a readable file", told)
        first = stacks[0]
        for stack in stacks:
            if stack.shape[1:] != first.shape[1:]:
                raise InputError(
                    f"cutouts.path: {stack.path}", f"objects {first.shape[1:]}", stack.shape[1:]
                )
        total = sum(stack.stored_bytes for stack in stacks)
        share = total // len(self._options.bands)
        known = {stack.path: stack.files for stack in stacks if isinstance(stack, ListedStack)}
        found = self._list_all(known)
        info = BandInfo(first.pixel_scale_arcsec, first.shape[2:], len(stacks), share, found)
        return dict.fromkeys(self._options.bands, info)

    def listing(self) -> Mapping[str, Listing]:
        """See `Reader`: a file holds every band."""
        return dict.fromkeys(self._options.bands, self._list_all({}))

    def _list_all(self, known: Mapping[str, Listing]) -> Listing:
        """The files of all paths, those that do not open too. known: listed when it was opened."""
        return merged(known.get(path) or self._list_files(path) for path in self._paths)

    def check(self, inputs: Sequence[InputSpec]) -> None:
        """See `Reader`."""
        check_inputs(self._options, self.describe(), inputs)

    def locality(self, sources: pa.Table) -> Int64[np.ndarray, " n"]:
        """Number of the storage group (chunk, shard or 4 MiB of a file) of each object."""
        index = self._stacks()
        position, _ = self._positions(sources, index)
        out = np.full(len(position), -1, np.int64)
        offset = 0
        for stack, start in zip(index.stacks, index.starts.tolist(), strict=True):
            group = _locality_rows(stack.layout)
            local = position - start
            inside = (position >= 0) & (local >= 0) & (local < stack.layout.total)
            out[inside] = offset + local[inside] // group
            offset += -(-stack.layout.total // group)
        return out

    def read(self, sources: pa.Table, inputs: Sequence[InputSpec]) -> CutoutBatch:
        """See `Reader`."""
        index = self._stacks()
        scale = index.stacks[0].pixel_scale_arcsec if index.stacks else None
        require_bands(inputs, self._options.bands)
        bands = {band for spec in inputs for band in spec.bands}
        assumed = scale if index.stacks else (scale or inputs[0].pixel_scale_arcsec)
        native = {band: native_scale(self._options, band, assumed) for band in bands}
        collector = Collector(sources.num_rows, inputs, native, self._options.resample)
        position, twice = self._positions(sources, index)
        collector.fail(np.flatnonzero(twice), Reason.DUPLICATE_ID, "the file has this id twice")
        self._fail_lost(collector, position, index)
        for stack, start in zip(index.stacks, index.starts.tolist(), strict=True):
            inside = (position >= start) & (position < start + stack.layout.total) & ~twice
            rows = np.flatnonzero(inside)
            if len(rows):
                self._read_stack(collector, stack, rows, position[rows] - start)
        return finish(collector, self._options, sources)

    def _read_stack(
        self,
        collector: Collector,
        stack: Stack,
        rows: Int64[np.ndarray, " k"],
        local: Int64[np.ndarray, " k"],
    ) -> None:
        used = collector.bands()
        planes = [plane for band in used for plane in collector.planes_of(band)]
        side = max(plane.window.side for plane in planes)
        height, width = stack.shape[2:]
        if min(height, width) < side:
            detail = f"{stack.path}: stamps of {height} x {width} pixels, {side} needed"
            collector.fail(rows, Reason.BAD_METADATA, detail)
            return
        top, left = crop_origin(height, side), crop_origin(width, side)
        region = Region(
            tuple(self._options.bands.index(band) for band in used),
            slice(top, top + side),
            slice(left, left + side),
        )
        if max(height, width) > min(plane.window.side for plane in planes):
            collector.mark(rows, Flag.CROPPED)
        order = np.argsort(local, kind="stable")
        wanted, inverse = np.unique(local, return_inverse=True)
        bounds = np.r_[0, np.cumsum(np.bincount(inverse, minlength=len(wanted)))]
        for piece in _guarded(stack, wanted, region):
            mine = order[bounds[piece.start] : bounds[piece.stop]]
            collector.bytes_read += piece.bytes_read
            if isinstance(piece.pixels, Exception):
                absent = isinstance(piece.pixels, MissingPixelsError)
                reason = Reason.NOT_FOUND if absent else Reason.UNREADABLE
                collector.fail(rows[mine], reason, f"{stack.path}: {piece.pixels}")
                continue
            take = as_slice(inverse[mine] - piece.start)
            for plane in planes:
                _store(plane, rows[mine], piece.pixels[take, used.index(plane.band)])

    def _fail_lost(
        self, collector: Collector, position: Int64[np.ndarray, " n"], index: Index
    ) -> None:
        """Rows that may lie in a file that does not open are unreadable, not absent."""
        if not index.broken:
            return
        lost = position == -1
        if index.lost_from is not None:
            lost = position >= index.lost_from
        collector.fail(np.flatnonzero(lost), Reason.UNREADABLE, "; ".join(index.broken))

    def _positions(
        self, sources: pa.Table, index: Index
    ) -> tuple[Int64[np.ndarray, " n"], np.ndarray[Any, np.dtype[np.bool_]]]:
        """Position of each source through all files, -1 where none; and whether its id is double
        there."""
        finder = self._options.finder
        finder.require(sources.schema)
        if self._options.row:
            position = _whole_numbers(sources[finder.name])
        else:
            keys = pc.cast(sources[finder.name], pa.string()).to_pylist()
            position = np.array([index.ids.get(key, -1) for key in keys], np.int64)
        return np.where(position == _TWICE, -1, position), position == _TWICE

    def _stacks(self) -> Index:
        with self._lock:
            if self._index is None:
                self._index = self._open_all()
            return self._index

    def _open_all(self) -> Index:
        stacks: list[Stack] = []
        starts: list[int] = []
        broken: list[str] = []
        ids: dict[str, int] = {}
        lost_from: int | None = None
        total = 0
        for path in self._paths:
            try:
                stack = self._open(path)
                names = stack.read_ids(self._options.ids) if self._options.ids else []
            except READ_ERRORS as error:
                raise_if_of_the_process(error, folder_of(path))
                broken.append(f"{path}: {error}")
                if self._options.row and lost_from is None:
                    lost_from = total
                continue
            if self._options.ids and len(names) != stack.layout.total:
                raise InputError(
                    f"cutouts.ids: {path}", f"{stack.layout.total} identifiers", len(names)
                )
            for number, name in enumerate(names):
                key = id_text(name)
                ids[key] = _TWICE if key in ids else total + number
            if lost_from is None:
                stacks.append(stack)
                starts.append(total)
                total += stack.layout.total
        return Index(tuple(stacks), np.array(starts, np.int64), tuple(broken), lost_from, ids)


_TWICE = -2


def _guarded(stack: Stack, wanted: Int64[np.ndarray, " k"], region: Region) -> Iterator[Piece]:
    """The pieces of a stack; what is left when its file fails as a whole is one broken piece."""
    left = np.ones(len(wanted), bool)
    try:
        for piece in stack.pieces(wanted, region):
            left[piece.start : piece.stop] = False
            yield piece
    except READ_ERRORS as error:
        raise_if_of_the_process(error, folder_of(stack.path))
        for number in np.flatnonzero(left).tolist():
            yield Piece(number, number + 1, error, 0)


def stated_bands(attribute: Any) -> tuple[str, ...] | None:
    """Band order that a file states about itself: a list of names, or one letter per band."""
    if attribute is None:
        return None
    if isinstance(attribute, bytes):
        attribute = attribute.decode("utf-8", "replace")
    if isinstance(attribute, str):
        return tuple(attribute.split(",")) if "," in attribute else tuple(attribute)
    return tuple(id_text(name) for name in attribute)


def check_band_order(path: str, count: int, attribute: Any, bands: tuple[str, ...]) -> None:
    """InputError where a file has another number of bands, or states another order of them."""
    stated = stated_bands(attribute)
    expected = f"{count} bands" if stated is None or len(stated) != count else ", ".join(stated)
    if count != len(bands) or (stated is not None and len(stated) == count and stated != bands):
        raise InputError(f"cutouts.bands: {path}", expected, ", ".join(bands))


def require_listable(field: str, count: int) -> None:
    """InputError where an array tells of more objects than can be listed one by one."""
    if count > _MOST_LISTED:
        raise InputError(field, f"at most {_MOST_LISTED:,} objects to list", f"{count:,}")


def require_ids(field: str, kind: Any) -> None:
    """InputError where an array of identifiers holds neither whole numbers nor text: as text 7.0 is
    not 7, so they would match nothing. kind: its NumPy type."""
    if kind.kind not in "iuSUOT":
        raise InputError(field, "identifiers that are whole numbers or text", kind)


def id_text(value: Any) -> str:
    """An identifier as text, so that 7, "7" and b"7" are the same one."""
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)


def _locality_rows(layout: Layout) -> int:
    """Objects per locality: the group, or whole granules of about 4 MiB of a larger one."""
    per_granule = max(1.0, layout.granule * layout.object_bytes)
    granules = max(1, int(_LOCALITY_BYTES / per_granule))
    return min(layout.group, granules * layout.granule)


def _store(plane: Plane, rows: Int64[np.ndarray, " k"], pixels: np.ndarray[Any, Any]) -> None:
    """Crop the square that was read to the plane's own window and keep it."""
    side = plane.window.side
    start = crop_origin(pixels.shape[1], side)
    square = pixels[:, start : start + side, start : start + side]
    with np.errstate(over="ignore", invalid="ignore"):
        plane.pixels[as_slice(rows)] = square
    plane.present[rows] = True
    plane.look_at(rows)


def _whole_numbers(column: pa.ChunkedArray) -> Int64[np.ndarray, " n"]:
    """Rows as a catalogue tells them, -1 where it tells none: no value, below 0, or beyond what any
    file holds."""
    if pa.types.is_uint64(column.type):
        most = pa.scalar(np.iinfo(np.int64).max, pa.uint64())
        column = pc.if_else(pc.greater(column, most), pa.scalar(None, pa.uint64()), column)
    told = pc.fill_null(pc.cast(column, pa.int64()), -1)
    return np.maximum(np.asarray(told.to_numpy(), dtype=np.int64), -1)
