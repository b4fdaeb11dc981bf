"""The selected rows in the order of the plan: by unit of storage, then by place on the sky.

Rows with an id that another row has too are marked on the way.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from jaxtyping import Bool, Int64, UInt64

from lenspipe.catalogue import scores
from lenspipe.contracts import DUPLICATE, PLAN_HASH, PLAN_ROW
from lenspipe.run_directory import RunDirectory
from lenspipe.storage.external_sort import (
    Sample,
    Scatter,
    divide,
    piece_of,
    sorted_piece,
    stream,
)

_FIRST = ("locality", "healpix_29")
_THEN = ("object_id", "ra", "dec")
_BITS = 63


def sorted_rows(run: RunDirectory, parts: Sequence[str]) -> Iterator[pa.Table]:
    """All rows of the part files by locality, `healpix_29`, `object_id`, ra and dec, with a column
    that says whether another row of the same id was taken. There must be a part file."""
    schema = scores.schema(run, parts)
    key = _survey_keys(run, parts)
    with Scatter() as rows:
        marks = _spread(run, parts, key, rows)
        for piece in rows.pieces():
            table = rows.read(piece)
            marked = pa.array(marks.at(table[PLAN_ROW].to_numpy()))
            table = table.select(schema.names).append_column(DUPLICATE, marked)
            ordered = sorted_piece(table, _FIRST, (*_THEN, DUPLICATE))
            yield ordered.cast(schema.append(pa.field(DUPLICATE, pa.bool_())))


@dataclass(frozen=True)
class _Key:
    """Locality and place in one number, in the order of both; the last bits of the place are left
    out where localities need them. bounds: first keys of the pieces but the first."""

    lowest: int
    place_bits: int
    bounds: UInt64[np.ndarray, " m"]
    rows: int
    pieces: int

    def of(
        self, locality: Int64[np.ndarray, " n"], place: Int64[np.ndarray, " n"]
    ) -> UInt64[np.ndarray, " n"]:
        unit = (locality - self.lowest).astype(np.uint64) << np.uint64(self.place_bits)
        return unit | (place.astype(np.uint64) >> np.uint64(_BITS - self.place_bits))


def _survey_keys(run: RunDirectory, parts: Sequence[str]) -> _Key:
    """One pass over the keys alone: how far they reach, and where to cut."""
    sample = Sample()
    lowest, highest = np.iinfo(np.int64).max, np.iinfo(np.int64).min
    for table in stream(run, parts, _FIRST):
        locality, place = (table[name].to_numpy() for name in _FIRST)
        lowest, highest = min(lowest, int(locality.min())), max(highest, int(locality.max()))
        sample.add(locality, place)
    bits = max(highest - lowest, 0).bit_length()
    none = np.empty(0, np.uint64)
    key = _Key(lowest, _BITS - min(bits, _BITS), none, sample.rows, sample.pieces)
    return replace(key, bounds=divide(key.of(*sample.keys), key.pieces))


class _Marks:
    """One bit a row."""

    def __init__(self, rows: int) -> None:
        self._bytes = np.zeros(rows // 8 + 1, np.uint8)

    def set(self, rows: Int64[np.ndarray, " n"]) -> None:
        np.bitwise_or.at(self._bytes, rows >> 3, (1 << (rows & 7)).astype(np.uint8))

    def at(self, rows: Int64[np.ndarray, " n"]) -> Bool[np.ndarray, " n"]:
        bits = self._bytes[rows >> 3] >> (rows & 7).astype(np.uint8)
        return np.asarray(bits & 1 == 1)


def _spread(run: RunDirectory, parts: Sequence[str], key: _Key, rows: Scatter) -> _Marks:
    """Spread the rows by key, and their ids by hash: rows of one id then meet in one piece."""
    at = 0
    marks = _Marks(key.rows)
    with Scatter() as ids, duckdb.connect(config={"threads": 1}) as connection:
        for table in stream(run, parts):
            number = pa.array(np.arange(at, at + table.num_rows))
            at += table.num_rows
            locality, place = (table[name].to_numpy() for name in _FIRST)
            rows.add(
                table.append_column(PLAN_ROW, number), piece_of(key.of(locality, place), key.bounds)
            )
            hashed = scores.hash_column(connection, table["object_id"])
            narrow = table.select(["object_id", "locality", "healpix_29", "ra", "dec"])
            narrow = narrow.append_column(PLAN_ROW, number).append_column(
                PLAN_HASH, pa.array(hashed)
            )
            ids.add(narrow, (hashed % np.uint64(key.pieces)).astype(np.int64))
        for piece in ids.pieces():
            marks.set(_repeated(ids.read(piece)))
    return marks


def _repeated(table: pa.Table) -> Int64[np.ndarray, " m"]:
    """Rows that have the id of another row which goes before them: pixels first, then place."""
    _, inverse, counts = np.unique(
        table[PLAN_HASH].to_numpy(), return_inverse=True, return_counts=True
    )
    suspects = table.take(pa.array(np.flatnonzero(counts[inverse] > 1)))
    if not suspects.num_rows:
        return np.empty(0, np.int64)
    nowhere = pc.less(suspects["locality"], 0)
    keys = ["object_id", "nowhere", "healpix_29", "ra", "dec", PLAN_ROW]
    ordered = suspects.append_column("nowhere", nowhere).sort_by([(k, "ascending") for k in keys])
    ids = ordered["object_id"].combine_chunks()
    again = pc.equal(ids.slice(1), ids.slice(0, len(ids) - 1)).to_numpy(zero_copy_only=False)
    return np.asarray(ordered[PLAN_ROW].to_numpy()[1:][again], np.int64)
