"""Regions of SAOImage DS9: a circle for every row, https://ds9.si.edu/doc/ref/region.html."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa

from lenspipe.errors import InputError

RADIUS_ARCSEC = 3.0
_HEADER = """\
# Region file format: DS9 version 4.1
global color=green width=1
icrs
"""
_LABELS = ("name", "object_id")


def write(rows: pa.RecordBatchReader, path: Path, _name: str) -> None:
    """See `lenspipe.catalogue.formats`. InputError where rows have no position in numbers."""
    for column in ("ra", "dec"):
        if column not in rows.schema.names:
            raise InputError("columns", "ra and dec, for regions", ", ".join(rows.schema.names))
        kind = rows.schema.field(column).type
        if not _is_number(kind):
            raise InputError(column, "numbers, for regions", kind)
    label = next((name for name in _LABELS if name in rows.schema.names), None)
    with path.open("w", encoding="utf-8") as file:
        file.write(_HEADER)
        for batch in rows:
            texts = batch[label].to_pylist() if label else [""] * batch.num_rows
            places = zip(batch["ra"].to_pylist(), batch["dec"].to_pylist(), texts, strict=True)
            file.writelines(_circle(*place) for place in places)


def _is_number(kind: pa.DataType) -> bool:
    kinds = pa.types.is_floating, pa.types.is_integer, pa.types.is_decimal, pa.types.is_null
    return any(is_kind(kind) for is_kind in kinds)


def _circle(ra: float | None, dec: float | None, text: object) -> str:
    if ra is None or dec is None:
        return ""
    # A text ends at its brace, and a line at its end.
    shown = "".join(c for c in str(text) if c.isprintable() and c not in "{}")
    return f'circle({ra:.7f},{dec:+.7f},{RADIUS_ARCSEC}") # text={{{shown}}}\n'
