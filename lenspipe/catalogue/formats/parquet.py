"""Parquet; units, descriptions and UCDs are in the fields' metadata."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from lenspipe.catalogue.columns import ucd_of


def write(rows: pa.RecordBatchReader, path: Path, _name: str) -> None:
    """See `lenspipe.catalogue.formats`."""
    schema = pa.schema([_with_ucd(field) for field in rows.schema])
    with pq.ParquetWriter(str(path), schema, compression="zstd") as writer:
        for batch in rows:
            writer.write_batch(pa.RecordBatch.from_arrays(batch.columns, schema=schema))


def _with_ucd(field: pa.Field) -> pa.Field:
    ucd = ucd_of(field.name)
    return field if ucd is None else field.with_metadata({**(field.metadata or {}), "ucd": ucd})
