"""Comma-separated text with a line of names; missing values are empty."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
from pyarrow import csv


def write(rows: pa.RecordBatchReader, path: Path, _name: str) -> None:
    """See `lenspipe.catalogue.formats`."""
    with csv.CSVWriter(str(path), rows.schema) as writer:
        for batch in rows:
            writer.write_batch(batch)
