"""What part files have in common: their columns, an identity of them all, hashes of values."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from jaxtyping import UInt64

from lenspipe.run_directory import RunDirectory, reading


def schema(run: RunDirectory, parts: Sequence[str]) -> pa.Schema:
    """Columns of the part files with their units and descriptions."""
    with reading(parts[0]), run.store.open(parts[0]) as file:
        return pq.read_schema(file).remove_metadata()


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
