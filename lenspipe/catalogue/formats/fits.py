"""FITS binary table; descriptions are in TCOMM, UCDs in TUCD."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa

from lenspipe.catalogue.columns import to_astropy, told, ucd_of
from lenspipe.catalogue.plain_types import plain
from lenspipe.errors import InputError


def write(rows: pa.RecordBatchReader, path: Path, name: str) -> None:
    """See `lenspipe.catalogue.formats`. All rows are in memory. InputError where a text is not
    ASCII, which FITS cannot hold, or a column is of lists, bytes or the like."""
    from astropy.io import fits

    table = plain(rows.read_all())
    _refuse_other_than_ascii(table)
    hdu = fits.table_to_hdu(to_astropy(table))
    hdu.name = name
    for k, field in enumerate(table.schema, 1):
        for keyword, text in (("TCOMM", told(field, "description")), ("TUCD", ucd_of(field.name))):
            if text:
                hdu.header[f"{keyword}{k}"] = text
    with path.open("wb") as sink:
        fits.HDUList([fits.PrimaryHDU(), hdu]).writeto(sink)


def _refuse_other_than_ascii(table: pa.Table) -> None:
    for field in table.schema:
        if pa.types.is_string(field.type) or pa.types.is_large_string(field.type):
            for value in table[field.name].to_pylist():
                if value and not (value.isascii() and value.isprintable()):
                    raise InputError(field.name, "text that FITS can hold (ASCII)", repr(value))
