"""The catalogue as parts that tasks read: planned by row group, read by column.

A part is about half a million rows: consecutive row groups of one file, or several small files.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from jaxtyping import Int64

from lenspipe import config
from lenspipe.errors import InputError
from lenspipe.select.expressions import match_column
from lenspipe.select.files import CatalogueFile, filesystem, find_files, fingerprint

PART_ROWS = 500_000
_PART_SLICES = 1_000  # most files of one part: each costs an open, however few rows it holds
_FOOTER_THREADS = 16
_FOOTERS_READ = 8
RESERVED = ("object_id", "ra", "dec")


@dataclass(frozen=True)
class FileSlice:
    """Consecutive row groups of one file. group_rows: rows of each, from `first_group` on."""

    file: CatalogueFile
    first_group: int
    group_rows: tuple[int, ...]
    size_bytes: int

    @property
    def rows(self) -> int:
        """Rows of the slice."""
        return sum(self.group_rows)


@dataclass(frozen=True)
class SourcePart:
    """The unit of stage `select`. Every row of the catalogue is in exactly one part."""

    index: int
    slices: tuple[FileSlice, ...]

    @property
    def rows(self) -> int:
        """Rows of the part."""
        return sum(piece.rows for piece in self.slices)

    @property
    def size_bytes(self) -> int:
        """Compressed size of its row groups with all columns."""
        return sum(piece.size_bytes for piece in self.slices)


@dataclass(frozen=True)
class View:
    """The catalogue's columns under the names that cuts, features and readers use.

    schema: name -> type, text as string. stored: (name, name in the files). missing_values: numbers
    read as NULL, but for id and position. A name of `sources.columns` or `sources.rename` hides a
    column of the files that has the same name.
    """

    schema: pa.Schema
    stored: tuple[tuple[str, str], ...]
    missing_values: tuple[float, ...] = ()

    def stored_name(self, name: str) -> str:
        """Name of column `name` in the files or their folders."""
        return dict(self.stored)[name]


def open_view(sources: config.Sources, base: str) -> View:
    """Names and types of a catalogue's columns, from its first file and its folders' names.

    InputError where a column that `sources` names is missing or of a kind that cannot serve.
    """
    files = find_files(sources.path, base)
    _, stored = _footer(files[0])
    physical = {field.name: _plain_type(field.type) for field in stored}
    for name, kind in _hive_types(files).items():
        physical.setdefault(name, kind)
    names = {name: name for name in physical}
    names |= _renamed(sources.rename, physical)
    for name, asked in zip(RESERVED, sources.columns.model_dump().values(), strict=True):
        names[name] = match_column(f"sources.columns.{name.split('_')[-1]}", asked, list(physical))
    view = View(
        pa.schema([(name, physical[column]) for name, column in names.items()]),
        tuple(names.items()),
        sources.missing_values,
    )
    _check_types(view.schema)
    return view


def list_parts(
    sources: config.Sources, base: str, columns: Collection[str] | None = None
) -> tuple[SourcePart, ...]:
    """Plan the whole catalogue, in an order that depends on the files only.

    columns: names in the files that must be of one type everywhere (default: all of the first
    file). InputError names the file that is unreadable or differs.
    """
    files = find_files(sources.path, base)
    with ThreadPoolExecutor(_FOOTER_THREADS) as pool:
        footers = pool.map(lambda file: _row_groups(file, columns), files)
        slices: list[FileSlice] = []
        expected: dict[str, str] = {}
        for file, (groups, types) in zip(files, footers, strict=True):
            expected = expected or types
            _check_same(file, types, expected, files[0])
            slices.append(
                FileSlice(file, 0, tuple(r for r, _ in groups), sum(b for _, b in groups))
            )
    parts = group_slices(slices, PART_ROWS)
    if not parts:
        raise InputError("sources.path", "a catalogue with rows", "none")
    return parts


def stored_share(files: Sequence[CatalogueFile], columns: Collection[str]) -> float:
    """Fraction of the catalogue's bytes that `columns` (names in the files) take, from the footers
    of a few files spread over it."""
    step = max(1, len(files) // _FOOTERS_READ)
    taken = total = 0
    for file in files[::step]:
        metadata, _ = _footer(file)
        for group in range(metadata.num_row_groups):
            row_group = metadata.row_group(group)
            for k in range(row_group.num_columns):
                column = row_group.column(k)
                total += column.total_compressed_size
                if column.path_in_schema.partition(".")[0] in columns:
                    taken += column.total_compressed_size
    return taken / total if total else 0.0


def group_slices(files: Sequence[FileSlice], part_rows: int) -> tuple[SourcePart, ...]:
    """Parts of at most `part_rows` rows (more only where one row group is larger).

    files: whole files, or the slices of a part that is to be planned anew. Row groups keep their
    order, so a part is a run of consecutive ones.
    """
    parts: list[tuple[FileSlice, ...]] = []
    current: list[FileSlice] = []
    held = 0
    for piece in (p for file in files for p in _cut_file(file, part_rows)):
        if current and (held + piece.rows > part_rows or len(current) >= _PART_SLICES):
            parts.append(tuple(current))
            current, held = [], 0
        current.append(piece)
        held += piece.rows
    if current:
        parts.append(tuple(current))
    return tuple(SourcePart(index, slices) for index, slices in enumerate(parts))


def read_part(
    part: SourcePart,
    view: View,
    columns: Sequence[str],
    rows: Int64[np.ndarray, " k"] | None = None,
    threads: int = 1,
) -> pa.Table:
    """Columns of a part in the order asked for, missing values as NULL.

    rows: positions in the part, increasing; row groups that hold none of them are not read.
    InputError where a file is gone, has changed since it was planned, or cannot be read.
    """
    offset, tables = 0, []
    for piece in part.slices:
        inside = None
        if rows is not None:
            low, high = np.searchsorted(rows, [offset, offset + piece.rows])
            inside = rows[low:high] - offset
        offset += piece.rows
        if inside is None or len(inside):
            tables.append(_read_slice(piece, view, columns, inside, threads > 1))
    schema = pa.schema([view.schema.field(name) for name in columns])
    return pa.concat_tables(tables) if tables else schema.empty_table()


def groups_holding(
    group_rows: Sequence[int], rows: Int64[np.ndarray, " k"]
) -> tuple[list[int], Int64[np.ndarray, " k"]]:
    """Which row groups hold any of `rows` (positions, increasing), and the positions of `rows` in
    those groups laid end to end."""
    ends = np.cumsum(np.asarray(group_rows, np.int64))
    group = np.searchsorted(ends, rows, side="right")
    needed = np.unique(group)
    sizes = np.asarray(group_rows, np.int64)
    starts = np.concatenate([[0], np.cumsum(sizes[needed])[:-1]])
    start_of = np.zeros(len(sizes), np.int64)
    start_of[needed] = starts
    return needed.tolist(), rows - (ends - sizes)[group] + start_of[group]


def _cut_file(file: FileSlice, part_rows: int) -> Iterator[FileSlice]:
    """A file, or a slice of one, as slices of at most `part_rows` rows; empty ones give none."""
    if not file.rows:
        return
    share = file.size_bytes / file.rows

    def piece(start: int, stop: int, rows: int) -> FileSlice:
        groups = file.group_rows[start:stop]
        return FileSlice(file.file, file.first_group + start, groups, round(share * rows))

    first, held = 0, 0
    for k, rows in enumerate(file.group_rows):
        if held and held + rows > part_rows:
            yield piece(first, k, held)
            first, held = k, 0
        held += rows
    if held:
        yield piece(first, len(file.group_rows), held)


def _read_slice(
    piece: FileSlice,
    view: View,
    columns: Sequence[str],
    rows: Int64[np.ndarray, " k"] | None,
    use_threads: bool,
) -> pa.Table:
    groups, take = list(range(len(piece.group_rows))), None
    if rows is not None:
        groups, take = groups_holding(piece.group_rows, rows)
    stored = {name: view.stored_name(name) for name in columns}
    with _unchanged(piece.file), _open(piece.file) as file:
        inside = set(file.schema_arrow.names)
        wanted = sorted({column for column in stored.values() if column in inside})
        table = file.read_row_groups(
            [piece.first_group + k for k in groups], columns=wanted, use_threads=use_threads
        )
    if take is not None:
        table = table.take(pa.array(take))
    partition = dict(piece.file.partition)
    arrays = [
        _as_type(table[stored[name]], view.schema.field(name).type)
        if stored[name] in inside
        else _repeat(partition.get(stored[name]), view.schema.field(name).type, table.num_rows)
        for name in columns
    ]
    schema = pa.schema([view.schema.field(name) for name in columns])
    return _with_nulls(pa.Table.from_arrays(arrays, schema=schema), view.missing_values)


def _with_nulls(table: pa.Table, missing_values: Sequence[float]) -> pa.Table:
    """What was not measured as NULL: floats that are not finite and, but in id and position,
    numbers that the survey file lists."""
    for k, field in enumerate(table.schema):
        listed = () if field.name in RESERVED else missing_values
        if pa.types.is_floating(field.type) or (pa.types.is_integer(field.type) and listed):
            table = table.set_column(k, field, _measured(table.column(k), listed))
    return table


def _measured(column: pa.ChunkedArray, missing_values: Sequence[float]) -> pa.ChunkedArray:
    return pa.chunked_array(
        [_measured_chunk(chunk, missing_values) for chunk in column.chunks], column.type
    )


def _measured_chunk(chunk: pa.Array, missing_values: Sequence[float]) -> pa.Array:
    """The chunk, untouched where all of it was measured (the usual case costs no copy)."""
    values = np.frombuffer(chunk.buffers()[1] or b"", chunk.type.to_pandas_dtype())
    values = values[chunk.offset : chunk.offset + len(chunk)]
    bad = np.zeros(len(values), bool)
    if values.dtype.kind == "f":
        bad |= ~np.isfinite(values)
    for missing in missing_values:
        if values.dtype.kind == "f" or (
            missing == int(missing) and _fits(int(missing), values.dtype)
        ):
            bad |= values == values.dtype.type(missing)
    return pc.if_else(pa.array(bad), pa.scalar(None, chunk.type), chunk) if bad.any() else chunk


def _fits(value: int, dtype: np.dtype[Any]) -> bool:
    limits = np.iinfo(dtype)
    return bool(limits.min <= value <= limits.max)


def _as_type(column: pa.ChunkedArray, kind: pa.DataType) -> pa.ChunkedArray:
    return column if column.type == kind else column.cast(kind)


def _repeat(value: str | None, kind: pa.DataType, rows: int) -> pa.Array:
    typed = int(value) if value is not None and pa.types.is_integer(kind) else value
    return pa.repeat(pa.scalar(typed, kind), rows)


@contextmanager
def _unchanged(file: CatalogueFile) -> Iterator[None]:
    """Fail with the file's name where it is not what was planned, before or after reading."""
    field = f"sources {file.path}"
    _compare_fingerprint(file)
    try:
        yield
    except (OSError, pa.ArrowException) as error:
        _compare_fingerprint(file)
        raise InputError(field, "readable Parquet", error) from error
    _compare_fingerprint(file)


def _compare_fingerprint(file: CatalogueFile) -> None:
    expected = f"the file as planned ({file.size_bytes} bytes, {file.fingerprint})"
    try:
        size, stamp = fingerprint(file.path)
    except OSError as error:
        raise InputError(f"sources {file.path}", expected, error) from error
    if (size, stamp) != (file.size_bytes, file.fingerprint):
        raise InputError(f"sources {file.path}", expected, f"{size} bytes, {stamp}")


@contextmanager
def _open(file: CatalogueFile) -> Iterator[pq.ParquetFile]:
    metadata, _ = _footer(file)
    with (
        _stream(file.path) as stream,
        pq.ParquetFile(stream, metadata=metadata, pre_buffer=True) as parquet,
    ):
        yield parquet


@contextmanager
def _stream(path: str) -> Iterator[Any]:
    if config.is_url(path):
        fs, inner = filesystem(path)
        with fs.open(inner, "rb", cache_type="none") as stream:
            yield stream
    else:
        with pa.OSFile(path) as stream:
            yield stream


@lru_cache(maxsize=4)
def _footer(file: CatalogueFile) -> tuple[pq.FileMetaData, pa.Schema]:
    """Footer of a file. A part is read twice, and a huge file has a huge footer: keep a few."""
    return _read_footer(file)


def _read_footer(file: CatalogueFile) -> tuple[pq.FileMetaData, pa.Schema]:
    try:
        with _stream(file.path) as stream, pq.ParquetFile(stream) as parquet:
            return parquet.metadata, parquet.schema_arrow
    except (OSError, pa.ArrowException) as error:
        raise InputError(f"sources {file.path}", "readable Parquet", error) from error


def _row_groups(
    file: CatalogueFile, columns: Collection[str] | None
) -> tuple[list[tuple[int, int]], dict[str, str]]:
    """(rows, compressed bytes) of each row group, and column -> type."""
    metadata, schema = _read_footer(file)
    groups = [metadata.row_group(k) for k in range(metadata.num_row_groups)]
    share = file.size_bytes / max(metadata.num_rows, 1)
    types = {
        field.name: str(_plain_type(field.type))
        for field in schema
        if columns is None or field.name in columns
    }
    return [(group.num_rows, round(share * group.num_rows)) for group in groups], types


def _check_same(
    file: CatalogueFile,
    types: Mapping[str, str],
    expected: Mapping[str, str],
    first: CatalogueFile,
) -> None:
    for name, kind in expected.items():
        if types.get(name) != kind:
            raise InputError(
                f"sources {file.path}: column {name}",
                f"{kind} as in {first.path}",
                types.get(name, "no such column"),
            )


def _renamed(rename: Mapping[str, str], physical: Mapping[str, pa.DataType]) -> dict[str, str]:
    for name in rename:
        if name in RESERVED:
            raise InputError(f"sources.rename.{name}", f"sources.columns for {name}", "a rename")
    return {
        name: match_column(f"sources.rename.{name}", column, list(physical))
        for name, column in rename.items()
    }


def _check_types(schema: pa.Schema) -> None:
    kind = schema.field("object_id").type
    if not (pa.types.is_integer(kind) or pa.types.is_string(kind)):
        raise InputError("sources.columns.id", "a column of integers or text", f"one of {kind}")
    for name in ("ra", "dec"):
        kind = schema.field(name).type
        if not pa.types.is_floating(kind):  # integers are an id or a cell, never degrees
            raise InputError(
                f"sources.columns.{name}", "a column of floats (deg)", f"one of {kind}"
            )


def _plain_type(kind: pa.DataType) -> pa.DataType:
    """One type for what means the same: text in any encoding is `string`."""
    if pa.types.is_dictionary(kind):
        return _plain_type(kind.value_type)
    if pa.types.is_large_string(kind) or pa.types.is_string_view(kind):
        return pa.string()
    return pa.float32() if pa.types.is_float16(kind) else kind


def _hive_types(files: Sequence[CatalogueFile]) -> dict[str, pa.DataType]:
    """Columns that folders' names spell out: integers where all values are, else text."""
    values: dict[str, set[str]] = {}
    for file in files:
        for name, value in file.partition:
            values.setdefault(name, set()).update([] if value is None else [value])
    return {
        name: pa.int64() if found and all(_is_integer(v) for v in found) else pa.string()
        for name, found in values.items()
    }


def _is_integer(text: str) -> bool:
    digits = text.removeprefix("-")
    return digits.isascii() and digits.isdigit() and len(digits) < 19
