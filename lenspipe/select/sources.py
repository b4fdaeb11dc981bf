"""The catalogue as parts that tasks read: planned by row group, read by column.

A part is about half a million rows: consecutive row groups of one file, or several small files.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from jaxtyping import Int64

from lenspipe import config
from lenspipe.errors import InputError
from lenspipe.select.expressions import match_column
from lenspipe.select.files import CatalogueFile, find_files
from lenspipe.select.measured import RESERVED, with_nulls
from lenspipe.select.parquet_file import footer, opened, read_footer, while_planning
from lenspipe.storage.takeable import takeable, takeable_type

PART_ROWS = 500_000
_PART_SLICES = 1_000  # most files of one part: each costs an open, however few rows it holds
_FOOTER_THREADS = 16
_FOOTERS_READ = 8


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
    read as NULL, but for id, position and the columns of `exact`. A name of `sources.columns` or
    `sources.rename` hides a column of the files that has the same name.
    """

    schema: pa.Schema
    stored: tuple[tuple[str, str], ...]
    missing_values: tuple[float, ...] = ()
    exact: frozenset[str] = frozenset()

    def stored_name(self, name: str) -> str:
        """Name of column `name` in the files or their folders."""
        return dict(self.stored)[name]


def open_view(sources: config.Sources, base: str) -> View:
    """Names and types of a catalogue's columns, from its first file and its folders' names.

    InputError where a column that `sources` names is missing or of a kind that cannot serve.
    """
    files = find_files(sources.path, base)
    with while_planning(files[0]):
        _, stored = footer(files[0])
    physical = {field.name: _plain_type(field.type) for field in stored}
    for name, kind in hive_types(files).items():
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
        metadata, _ = footer(file)
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
    as_stored: bool = False,
) -> pa.Table:
    """Columns of a part in the order asked for, missing values as NULL (not so `as_stored`).

    rows: positions in the part, increasing; row groups that hold none of them are not read.
    InputError where a file is gone, has changed since it was planned, or is no whole Parquet;
    where its storage fails, the storage's own error.
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
    table = pa.concat_tables(tables) if tables else schema.empty_table()
    return table if as_stored else with_nulls(table, view.missing_values, view.exact)


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
    with opened(piece.file) as file:
        inside = set(file.schema_arrow.names)
        wanted = sorted({column for column in stored.values() if column in inside})
        at_once = use_threads or config.is_url(piece.file.path)
        tables = [
            _read_columns(file, piece, groups, names, take, use_threads)
            for names in ([wanted] if at_once or not wanted else [[name] for name in wanted])
        ]
    found = {name: table[name] for table in tables for name in table.column_names}
    partition = dict(piece.file.partition)
    arrays = [
        _as_type(found[stored[name]], view.schema.field(name).type)
        if stored[name] in inside
        else folder_column(
            partition.get(stored[name]), view.schema.field(name).type, tables[0].num_rows
        )
        for name in columns
    ]
    schema = pa.schema([view.schema.field(name) for name in columns])
    return pa.Table.from_arrays(arrays, schema=schema)


def _read_columns(
    file: pq.ParquetFile,
    piece: FileSlice,
    groups: Sequence[int],
    names: Sequence[str],
    take: Int64[np.ndarray, " k"] | None,
    use_threads: bool,
) -> pa.Table:
    """Columns of row groups of a slice, of all rows or of those to take.

    On a local disk a column at a time costs a tenth less than all, where few rows are taken a
    fifth: what is decoded stays in the processor's cache.
    """
    numbers = [piece.first_group + k for k in groups]
    table = file.read_row_groups(numbers, columns=list(names), use_threads=use_threads)
    _check_rows(piece, groups, table)
    table = takeable(table)
    return table if take is None else table.take(pa.array(take))


def _check_rows(piece: FileSlice, groups: Sequence[int], table: pa.Table) -> None:
    """A footer that was damaged since the plan may tell of other rows."""
    planned = sum(piece.group_rows[k] for k in groups)
    if table.num_rows != planned:
        raise InputError(f"sources {piece.file.path}", f"{planned} rows as planned", table.num_rows)


def _as_type(column: pa.ChunkedArray, kind: pa.DataType) -> pa.ChunkedArray:
    return column if column.type == kind else column.cast(kind)


def folder_column(value: str | None, kind: pa.DataType, rows: int) -> pa.Array:
    """What a folder's name says of all rows of a file. kind: one of `hive_types`."""
    typed = int(value) if value is not None and pa.types.is_integer(kind) else value
    return pa.repeat(pa.scalar(typed, kind), rows)


def _row_groups(
    file: CatalogueFile, columns: Collection[str] | None
) -> tuple[list[tuple[int, int]], dict[str, str]]:
    """(rows, compressed bytes) of each row group, and column -> type."""
    with while_planning(file):
        metadata, schema = read_footer(file)
    groups = [metadata.row_group(k) for k in range(metadata.num_row_groups)]
    share = file.size_bytes / max(metadata.num_rows, 1)
    used = [field for field in schema if columns is None or field.name in columns]
    _refuse_twice(file, [field.name for field in used])
    types = {field.name: str(_plain_type(field.type)) for field in used}
    return [(group.num_rows, round(share * group.num_rows)) for group in groups], types


def _refuse_twice(file: CatalogueFile, names: Sequence[str]) -> None:
    for name, count in Counter(names).items():
        if count > 1:
            raise InputError(f"sources {file.path}: column {name}", "each column once", count)


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
    if pa.types.is_large_string(kind):
        return pa.string()
    return pa.float32() if pa.types.is_float16(kind) else takeable_type(kind)


def hive_types(files: Sequence[CatalogueFile]) -> dict[str, pa.DataType]:
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
