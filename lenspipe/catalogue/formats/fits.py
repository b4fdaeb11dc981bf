"""FITS binary table; descriptions are in TCOMM, UCDs in TUCD."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa

from lenspipe.catalogue.columns import to_astropy, told, ucd_of
from lenspipe.catalogue.plain_types import plain


def write(rows: pa.RecordBatchReader, path: Path, name: str) -> None:
    """See `lenspipe.catalogue.formats`. All rows are in memory. FITS holds printable ASCII alone:
    text is escaped as Python's `unicode_escape` does it (é is `\\xe9`, a line break `\\n`, a
    backslash two). InputError where a column is of lists, bytes or the like."""
    from astropy.io import fits

    table = _escaped(plain(rows.read_all()))
    hdu = fits.table_to_hdu(to_astropy(table))
    hdu.name = name
    for k, field in enumerate(table.schema, 1):
        for keyword, text in (("TCOMM", told(field, "description")), ("TUCD", ucd_of(field.name))):
            if text:
                hdu.header[f"{keyword}{k}"] = text
    with path.open("wb") as sink:
        fits.HDUList([fits.PrimaryHDU(), hdu]).writeto(sink)


def _escaped(table: pa.Table) -> pa.Table:
    for k, field in enumerate(table.schema):
        if pa.types.is_string(field.type) or pa.types.is_large_string(field.type):
            texts = [text and _escape(text) for text in table[k].to_pylist()]
            table = table.set_column(k, field, pa.array(texts, field.type))
    return table


def _escape(text: str) -> str:
    return text.encode("unicode_escape").decode("ascii")
