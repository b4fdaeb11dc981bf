"""Parquet; units, descriptions and UCDs are in the fields' metadata."""

from __future__ import annotations

import io
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from lenspipe.catalogue.columns import ucd_of
from lenspipe.errors import InputError


def write(rows: pa.RecordBatchReader, path: Path, _name: str) -> None:
    """See `lenspipe.catalogue.formats`. InputError where Parquet has no such type (intervals)."""
    for field in rows.schema:
        _require_type(field)
    schema = pa.schema([_with_ucd(field) for field in rows.schema])
    with pq.ParquetWriter(str(path), schema, compression="zstd") as writer:
        for batch in rows:
            writer.write_batch(pa.RecordBatch.from_arrays(batch.columns, schema=schema))


def _require_type(field: pa.Field) -> None:
    try:
        pq.ParquetWriter(io.BytesIO(), pa.schema([field])).close()
    except pa.ArrowException as error:
        raise InputError(field.name, "a type that Parquet has", field.type) from error


def _with_ucd(field: pa.Field) -> pa.Field:
    ucd = ucd_of(field.name)
    return field if ucd is None else field.with_metadata({**(field.metadata or {}), "ucd": ucd})
