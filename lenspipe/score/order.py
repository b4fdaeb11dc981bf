"""`lenspipe score`: how many rows are read at once, and in which order."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from jaxtyping import Int64

from lenspipe.cutouts.base import Reader
from lenspipe.models.providers import on_gpu
from lenspipe.score.layout import CATALOGUE_ROW
from lenspipe.stages.scoring import ShardPixels

STAMP_ROWS = 256  # one file each: nothing is read twice, and scoring begins early
LEAST_ROWS = 2048  # of other readers: a tile or a packed chunk is opened once for all its rows
_BATCHES = 4  # of a chunk: one is made while another runs, and a cascade's later members fill some


def chunk_rows(reader: str, provider: str, batch_size: int) -> int:
    """Rows that are read and scored at once; the next ones are read in the meantime.

    reader: its name; provider: the one in use; batch_size: the largest of a member.
    """
    if reader == "stamps" and not on_gpu(provider):
        return STAMP_ROWS
    return max(LEAST_ROWS, _BATCHES * batch_size)


def with_locality(sources: pa.Table, reader: Reader) -> pa.Table:
    """The rows with column `locality`, ordered by it: rows of one tile or chunk come together.

    Rows of one locality stay in the catalogue's order, which `InOrder` brings back for all.
    """
    locality = reader.locality(sources)
    if "locality" in sources.column_names:  # the catalogue's own means something else
        sources = sources.drop_columns("locality")
    sources = sources.append_column("locality", pa.array(locality))
    if (np.diff(locality) >= 0).all():
        return sources
    return sources.take(pa.array(np.argsort(locality, kind="stable")))


class InOrder:
    """Scores and failures of chunks in any order, given back in the catalogue's."""

    def __init__(self) -> None:
        self._parts: tuple[list[pa.Table], list[pa.Table]] = ([], [])
        self._rows: tuple[list[np.ndarray], list[np.ndarray]] = ([], [])

    def add(self, pixels: ShardPixels, scores: pa.Table, failures: pa.Table) -> None:
        """One chunk: what was read, and what `score_rows` made of it."""
        scored = _rows_scored(pixels, scores)
        failed = np.setdiff1d(np.arange(pixels.sources.num_rows), scored)
        number = pixels.sources[CATALOGUE_ROW].to_numpy()
        for k, (table, rows) in enumerate(((scores, scored), (failures, failed))):
            self._parts[k].append(table)
            self._rows[k].append(number[rows])

    def tables(self) -> tuple[pa.Table, pa.Table]:
        """(scores, failures) of all chunks; ValueError where there was none."""
        scores, failures = (
            pa.concat_tables(parts).take(pa.array(np.argsort(np.concatenate(rows))))
            for parts, rows in zip(self._parts, self._rows, strict=True)
        )
        return scores, failures


def _rows_scored(pixels: ShardPixels, scores: pa.Table) -> Int64[np.ndarray, " n"]:
    """Row of the chunk of each score. Rows that are no repetition have ids of their own, and
    failures come in the order of their rows."""
    wanted = np.flatnonzero(~pixels.repeated)
    identity = pixels.sources["object_id"].take(pa.array(wanted))
    found = pc.index_in(scores["object_id"], value_set=identity.combine_chunks())
    return np.asarray(wanted[found.to_numpy()], np.int64)
