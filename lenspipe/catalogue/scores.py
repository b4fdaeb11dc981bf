"""The committed scores or failures of a run as one SQL table, however many files they are."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.dataset as pads
from jaxtyping import UInt64

from lenspipe.run_directory import RunDirectory

# What DuckDB may hold before it spills to disk; its default, most of the machine, would take
# memory from the scorers that share it.
MEMORY_LIMIT = "1GB"
# Each thread needs memory of its own: a sort of 10 million rows by 64 does not fit into the limit.
THREADS = 4


@contextmanager
def connect(
    run: RunDirectory, parts: Sequence[str], table: str = "scores"
) -> Iterator[duckdb.DuckDBPyConnection]:
    """A DuckDB connection with `table` over the part files; sorts spill to disk."""
    with TemporaryDirectory(prefix="lenspipe-scores-") as scratch:
        spill = str(Path(scratch, "duckdb"))
        config: dict[str, str | bool | int | float | list[str]] = {
            "temp_directory": spill,
            "memory_limit": MEMORY_LIMIT,
            "threads": min(THREADS, os.cpu_count() or 1),
        }
        with duckdb.connect(config=config) as connection:
            connection.register(table, _dataset(run, parts))
            yield connection


def schema(run: RunDirectory, parts: Sequence[str]) -> pa.Schema:
    """Columns of the part files with their units and descriptions."""
    return _dataset(run, parts[:1]).schema.remove_metadata()


def fingerprint(parts: Sequence[str], *settings: object) -> str:
    """Identity of what is made from these part files with these settings.

    A part's name is never used twice, so that names stand for contents.
    """
    text = "\n".join([*sorted(parts), *map(repr, settings)])
    return hashlib.sha256(text.encode()).hexdigest()


def hash_column(
    connection: duckdb.DuckDBPyConnection, column: pa.ChunkedArray
) -> UInt64[np.ndarray, " n"]:
    """A 64-bit hash of each value."""
    connection.register("hashed", pa.table({"value": column}))
    found = connection.sql("SELECT hash(value) AS value FROM hashed").fetchnumpy()["value"]
    return np.asarray(found, np.uint64)


def _dataset(run: RunDirectory, parts: Sequence[str]) -> pads.Dataset:
    return pads.dataset(
        [run.store.path(name) for name in parts],
        filesystem=run.store.arrow_filesystem(),
        format="parquet",
    )
