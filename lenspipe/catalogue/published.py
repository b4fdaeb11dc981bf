"""The published catalogue for reading: its files by HEALPix pixel, and the rows of a cone."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from jaxtyping import Int64

from lenspipe.catalogue.cone import Cone, inside, overlap
from lenspipe.catalogue.hats import PARTITIONS, listed_pixels, partition_file, read_properties
from lenspipe.catalogue.partitions import MAX_ORDER
from lenspipe.catalogue.places import HEALPIX
from lenspipe.errors import CorruptRunError, InputError
from lenspipe.run_directory import CATALOGUE, RunDirectory

SEPARATION = pa.field(
    "separation_arcsec",
    pa.float64(),
    metadata={"unit": "arcsec", "description": "angular distance from the cone's centre"},
)
_PLACE = (HEALPIX, "ra", "dec")
_FOOTERS = 4096  # kept of the files that were looked into: some 10 kB each
_THREADS = min(8, 2 * (os.cpu_count() or 1))


@dataclass(frozen=True)
class _File:
    """name: below the run. first, last: the smallest and largest `healpix_29` of its pixel."""

    name: str
    first: int
    last: int


@dataclass(frozen=True)
class RowGroup:
    """Some ten thousand rows of an open file, sorted by `healpix_29`."""

    _file: Any
    _number: int

    @cached_property
    def places(self) -> pa.Table:
        """Columns `healpix_29`, `ra`, `dec`."""
        return self._file.read_row_group(self._number, columns=list(_PLACE), use_threads=False)

    def take(self, rows: Int64[np.ndarray, " n"], columns: Sequence[str]) -> pa.Table:
        """Some rows with some columns."""
        others = [name for name in columns if name not in _PLACE]
        read = self.places
        if others:
            read = self._file.read_row_group(self._number, columns=others, use_threads=False)
        at = pa.array(rows)
        source = {name: self.places if name in _PLACE else read for name in columns}
        return pa.table({name: table[name].take(at) for name, table in source.items()})


class _Count:
    """Rows that several threads found together."""

    def __init__(self, most: int | None) -> None:
        self._most, self._rows, self._lock = most, 0, threading.Lock()

    def add(self, rows: int) -> None:
        with self._lock:
            self._rows += rows

    @property
    def full(self) -> bool:
        return self._most is not None and self._rows >= self._most


class Published:
    """RUN/catalogue. InputError where the run has none: it is not finished, or nothing was scored.

    Safe to use from several threads; the footers of its files are read once.
    """

    def __init__(self, run: RunDirectory) -> None:
        if read_properties(run) is None:
            raise InputError("run", "a finished run, with its catalogue", f"{run.url} without one")
        self._run = run
        self._files = _list_files(run)
        self._footer = lru_cache(_FOOTERS)(self._read_footer)

    @property
    def files(self) -> list[str]:
        """Names of the Parquet files below the run, in the order of `healpix_29`."""
        return [file.name for file in self._files]

    @cached_property
    def schema(self) -> pa.Schema:
        """Columns with their units and descriptions."""
        return self._footer(self._files[0].name).schema.to_arrow_schema().remove_metadata()

    def cone(
        self, cone: Cone, columns: Sequence[str] | None = None, most_rows: int | None = None
    ) -> pa.Table:
        """Rows inside a cone, the nearest first, and `separation_arcsec` after their columns.

        Only row groups whose range of `healpix_29` meets the cone are read, and columns other than
        the position only where a row is inside. columns: all by default; InputError names one that
        the catalogue lacks. most_rows: no more is read once so many are found; they are then some
        of the cone's, not its nearest.
        """
        wanted = self._check(columns)
        ranges = cone.ranges()
        schema = pa.schema([self.schema.field(name) for name in wanted]).append(SEPARATION)
        count = _Count(most_rows)

        def search(file: _File) -> list[pa.Table]:
            found = []
            for group in self._groups(file, ranges):
                if count.full:
                    break
                if (rows := _in_cone(group, cone, ranges, wanted)) is not None:
                    found.append(rows)
                    count.add(rows.num_rows)
            return found

        with ThreadPoolExecutor(_THREADS) as pool:
            found = [
                table for tables in pool.map(search, self._touched(ranges)) for table in tables
            ]
        together = pa.concat_tables([schema.empty_table(), *(t.cast(schema) for t in found)])
        return together.sort_by(SEPARATION.name).slice(0, most_rows).combine_chunks()

    def row_groups(self, ranges: Int64[np.ndarray, "n 2"]) -> Iterator[RowGroup]:
        """Row groups that meet some rising ranges [first, stop) of `healpix_29`, in its order; one
        file is open at a time."""
        for file in self._touched(ranges):
            yield from self._groups(file, ranges)

    def _touched(self, ranges: Int64[np.ndarray, "n 2"]) -> list[_File]:
        return [file for file in self._files if overlap(file.first, file.last, ranges)]

    def _check(self, columns: Sequence[str] | None) -> list[str]:
        known: list[str] = self.schema.names
        for name in columns or ():
            if name not in known:
                raise InputError("columns", f"some of {', '.join(known)}", repr(name))
        return known if columns is None else list(dict.fromkeys(columns))

    def _groups(self, file: _File, ranges: Int64[np.ndarray, "n 2"]) -> Iterator[RowGroup]:
        footer = self._footer(file.name)
        groups = [k for k, ends in enumerate(_ends(footer)) if overlap(*ends, ranges)]
        if groups:
            with self._opened(file.name, footer) as opened:
                yield from (RowGroup(opened, k) for k in groups)

    def _opened(self, name: str, footer: Any = None) -> Any:
        store = self._run.store
        try:
            source = store.path(name) if store.is_local else store.open(name)
            return pq.ParquetFile(source, metadata=footer, memory_map=store.is_local)
        except FileNotFoundError as error:
            raise CorruptRunError(f"{name}: lost: lenspipe run makes the catalogue anew") from error
        except pa.ArrowInvalid as error:
            raise CorruptRunError(f"{name}: no whole Parquet file: {error}") from error

    def _read_footer(self, name: str) -> pq.FileMetaData:
        with self._opened(name) as file:
            return file.metadata


def _list_files(run: RunDirectory) -> list[_File]:
    try:
        pixels = listed_pixels(run)
    except (FileNotFoundError, KeyError, ValueError) as error:
        raise CorruptRunError(f"{CATALOGUE}/{PARTITIONS}: no list of pixels: {error}") from error
    files = []
    for order, pixel in pixels:
        shift = 2 * (MAX_ORDER - order)
        last = ((pixel + 1) << shift) - 1
        files.append(_File(partition_file(order, pixel), pixel << shift, last))
    return sorted(files, key=lambda file: file.first)


def _in_cone(
    group: RowGroup, cone: Cone, ranges: Int64[np.ndarray, "n 2"], columns: Sequence[str]
) -> pa.Table | None:
    """Positions first: most groups that a small cone touches hold none of its rows."""
    near = np.flatnonzero(inside(group.places[HEALPIX].to_numpy(), ranges))
    ra, dec = (group.places[name].to_numpy()[near] for name in ("ra", "dec"))
    separation = cone.separation_deg(ra, dec)
    within = separation <= cone.radius_deg
    if not within.any():
        return None
    found = group.take(near[within], columns)
    return found.append_column(SEPARATION, pa.array(separation[within] * 3600.0))


def _ends(footer: pq.FileMetaData) -> Iterator[tuple[int, int]]:
    """Smallest and largest `healpix_29` of each row group; the whole sky where it is not told."""
    column = footer.schema.to_arrow_schema().get_field_index(HEALPIX)
    for k in range(footer.num_row_groups):
        told = footer.row_group(k).column(column).statistics
        yield (told.min, told.max) if told is not None and told.has_min_max else (0, 2**62)
