"""VOTable 1.4 of the IVOA, https://www.ivoa.net/documents/VOTable/; positions are in a COOSYS."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa

from lenspipe.catalogue.plain_types import plain
from lenspipe.catalogue.votable import document
from lenspipe.errors import InputError


def write(rows: pa.RecordBatchReader, path: Path, name: str) -> None:
    """See `lenspipe.catalogue.formats`. All rows are in memory. InputError where a column is of
    lists, bytes or the like, or a text has characters that XML has not."""
    _refuse_control_characters(table := plain(rows.read_all()))
    path.write_bytes(document(table, name))


def _refuse_control_characters(table: pa.Table) -> None:
    """InputError where a text has characters that XML 1.0 cannot hold."""
    for field in table.schema:
        if pa.types.is_string(field.type) or pa.types.is_large_string(field.type):
            for value in table[field.name].to_pylist():
                if value and any(ord(c) < 32 and c not in "\t\n\r" for c in value):
                    raise InputError(field.name, "text that XML can hold", repr(value))
