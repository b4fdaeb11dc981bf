"""Tables that need not fit memory: spread over a file by key, then taken up piece by piece.

Rows are given the number of a piece, by range of their key (a sort) or by its hash (a search for
equal keys), and written to one scratch file, grouped by piece. A piece is small enough to be read
whole. Memory is that of a chunk and of a piece, however many rows there are.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from tempfile import TemporaryFile, gettempdir
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from jaxtyping import Bool, Int64, UInt64

from lenspipe.run_directory import RunDirectory, reading

CHUNK_ROWS = 1 << 18  # read, and written to scratch, at a time
PIECE_ROWS = 1 << 18  # sorted at a time; somewhat more where many keys are near each other
_SAMPLE_ROWS = 1 << 17
_MOST_BATCHES = 512  # tiny ones take more memory than their rows


def stream(
    run: RunDirectory,
    parts: Iterable[str],
    columns: Sequence[str] | None = None,
    rows: int | None = None,
) -> Iterator[pa.Table]:
    """Rows of part files in tables of about `rows`; none of them is empty. CorruptRunError names a
    damaged one."""
    wanted = rows or CHUNK_ROWS
    waiting: list[pa.RecordBatch] = []
    whole: list[pa.Table] = []
    held = 0
    for name in parts:
        with reading(name), _opened(run, name) as file:
            for batch in _batches(file, columns, wanted):
                waiting.append(batch)
                held += batch.num_rows
                if held >= wanted or len(waiting) == _MOST_BATCHES:
                    whole.append(pa.Table.from_batches(waiting).combine_chunks())
                    waiting = []
                if held >= wanted:
                    yield pa.concat_tables(whole).combine_chunks()
                    whole, held = [], 0
    if waiting:
        whole.append(pa.Table.from_batches(waiting))
    if whole:
        yield pa.concat_tables(whole).combine_chunks()


def _opened(run: RunDirectory, name: str) -> Any:
    """A part file. Of tiny ones the opening is what costs, and Arrow's own is the quickest."""
    if run.store.is_local:
        return pa.OSFile(str(run.store.local_path(name)))
    return run.store.open(name)


def _batches(file: Any, columns: Sequence[str] | None, rows: int) -> Iterator[pa.RecordBatch]:
    opened = pq.ParquetFile(file, page_checksum_verification=True)
    names = None if columns is None else list(columns)
    for batch in opened.iter_batches(batch_size=min(rows, CHUNK_ROWS // 4), columns=names):
        if batch.num_rows:
            yield batch.replace_schema_metadata()


@contextmanager
def _scratch_named() -> Iterator[None]:
    """Names the folder where scratch is full: a file without a name cannot say where it lies."""
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        text = f"{os.strerror(error.errno)} in the temporary folder (TMPDIR sets it)"
        raise OSError(error.errno, text, gettempdir()) from error


class Scatter:
    """Rows on disk, grouped by piece: first all are added, then pieces are read in any order.

    They lie in a file without a name, which is gone with the process whatever ends it. OSError
    with the name of the temporary folder where its disk is full.
    """

    def __init__(self) -> None:
        with _scratch_named():
            self._file = TemporaryFile(prefix="lenspipe-sort-")  # noqa: SIM115  # see __exit__
        self._writer: pa.RecordBatchFileWriter | None = None
        self._reader: pa.RecordBatchFileReader | None = None
        self._batches: dict[int, list[int]] = {}
        self._count = 0

    def __enter__(self) -> Scatter:
        return self

    def __exit__(self, *_: object) -> None:
        self._writer = self._reader = None
        with suppress(OSError):  # what a full disk did not take is not needed any more
            self._file.close()

    def add(self, table: pa.Table, piece: Int64[np.ndarray, " n"]) -> None:
        """Rows with the number of the piece that each belongs to."""
        with _scratch_named():
            self._add(table, piece)

    def _add(self, table: pa.Table, piece: Int64[np.ndarray, " n"]) -> None:
        if self._writer is None:
            self._writer = pa.ipc.new_file(self._file, table.schema)
        order = np.argsort(piece, kind="stable")
        grouped = table.take(pa.array(order)).combine_chunks()
        numbers, starts = np.unique(piece[order], return_index=True)
        stops = [*starts[1:].tolist(), len(order)]
        for number, start, stop in zip(numbers.tolist(), starts.tolist(), stops, strict=True):
            for batch in grouped.slice(start, stop - start).to_batches():
                self._writer.write_batch(batch)
                self._batches.setdefault(number, []).append(self._count)
                self._count += 1

    def pieces(self) -> list[int]:
        """Numbers of the pieces that have rows, ascending."""
        return sorted(self._batches)

    def read(self, piece: int) -> pa.Table:
        """All rows of a piece that has some."""
        with _scratch_named():
            return self._read(piece)

    def _read(self, piece: int) -> pa.Table:
        if self._writer is not None:
            self._writer.close()
            self._writer = None
            self._reader = pa.ipc.open_file(self._file)
        if self._reader is None:
            raise ValueError("no rows were added")
        batches = [self._reader.get_batch(index) for index in self._batches[piece]]
        return pa.Table.from_batches(batches).combine_chunks()


class Sample:
    """A thinned copy of a stream of keys, to divide it into pieces of about equal size."""

    def __init__(self) -> None:
        self._step = 1
        self._kept: list[Int64[np.ndarray, "k n"]] = []
        self.rows = 0

    def add(self, *keys: Int64[np.ndarray, " n"]) -> None:
        """The keys of further rows: as many arrays every time."""
        self.rows += len(keys[0])
        self._kept.append(np.stack([key[:: self._step] for key in keys]))
        if sum(kept.shape[1] for kept in self._kept) > 2 * _SAMPLE_ROWS:
            self._step *= 2
            self._kept = [np.concatenate(self._kept, axis=1)[:, ::2]]

    @property
    def keys(self) -> Int64[np.ndarray, "k n"]:
        """What was kept."""
        return np.concatenate(self._kept, axis=1)

    @property
    def pieces(self) -> int:
        """How many pieces the rows make."""
        return pieces_of(self.rows)


def pieces_of(rows: int) -> int:
    """How many pieces so many rows make."""
    return max(1, -(-rows // PIECE_ROWS))


def divide(keys: UInt64[np.ndarray, " n"], pieces: int) -> UInt64[np.ndarray, " m"]:
    """First keys of the second and further pieces, from a sample of the keys."""
    ordered = np.sort(keys)
    at = np.arange(1, pieces) * len(ordered) // pieces
    return np.unique(ordered[at])


def piece_of(
    keys: UInt64[np.ndarray, " n"], bounds: UInt64[np.ndarray, " m"]
) -> Int64[np.ndarray, " n"]:
    """The piece of each key; bounds: of `divide`."""
    return np.searchsorted(bounds, keys, side="right").astype(np.int64)


def sorted_piece(table: pa.Table, first: Sequence[str], then: Sequence[str]) -> pa.Table:
    """Rows by the whole numbers in columns `first`; those that are alike in them by `then` too."""
    keys = [table[name].to_numpy() for name in first]
    order = np.lexsort(keys[::-1])
    tied = _tied([key[order] for key in keys])
    if tied.any():
        alike = pa.array(order[tied])
        columns = [(name, "ascending") for name in (*first, *then)]
        inside = pc.sort_indices(table.select([*first, *then]).take(alike), sort_keys=columns)
        order[tied] = alike.take(inside).to_numpy()
    return table.take(pa.array(order))


def _tied(keys: Sequence[np.ndarray]) -> Bool[np.ndarray, " n"]:
    """Rows that have the keys of a neighbour; sorted by them."""
    same = np.ones(max(len(keys[0]) - 1, 0), bool)
    for key in keys:
        same &= key[1:] == key[:-1]
    tied = np.zeros(len(keys[0]), bool)
    tied[1:] |= same
    tied[:-1] |= same
    return tied


def slabs(tables: Iterable[pa.Table], rows: int) -> Iterator[pa.Table]:
    """The same rows in tables of exactly `rows`, but for the last; each in one chunk."""
    waiting: list[pa.Table] = []
    held = 0
    for table in tables:
        waiting.append(table)
        held += table.num_rows
        if held >= rows:
            whole = pa.concat_tables(waiting)
            for start in range(0, held - held % rows, rows):
                yield whole.slice(start, rows).combine_chunks()
            waiting = [whole.slice(held - held % rows)]
            held %= rows
    if held:
        yield pa.concat_tables(waiting).combine_chunks()
