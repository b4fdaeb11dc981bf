"""Comma-separated text with a line of names; missing values are empty, decimals exact."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
from pyarrow import csv

from lenspipe.catalogue.plain_types import as_plain_schema, plain


def write(rows: pa.RecordBatchReader, path: Path, _name: str) -> None:
    """See `lenspipe.catalogue.formats`. InputError where a column is of lists or bytes, say."""
    with csv.CSVWriter(str(path), as_plain_schema(rows.schema)) as writer:
        for batch in rows:
            writer.write_table(plain(pa.Table.from_batches([batch]), by_type=True))
