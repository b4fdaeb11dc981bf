"""Columns of a run's tables for people and tools: units, descriptions, UCDs, astropy."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

if TYPE_CHECKING:
    from astropy.table import Table

# UCD1+, https://www.ivoa.net/documents/UCD1+/; a column is found by its whole name first, then by
# how it begins.
_UCDS = {
    "object_id": "meta.id;meta.main",
    "name": "meta.id",
    "ra": "pos.eq.ra;meta.main",
    "dec": "pos.eq.dec;meta.main",
    "healpix_29": "pos.healpix",
    "score": "stat.likelihood;meta.main",
    "probability": "stat.probability",
    "flags": "meta.code.qual",
    "model_hash": "meta.id;meta.modelled",
    "rank": "meta.number",
    "has_stamp": "meta.code",
    "grade": "meta.code.class",
    "votes": "meta.number",
    "known_lens": "meta.id.cross",
    "type": "meta.code.class",
    "reference": "meta.bib",
    "fate": "meta.code.status",
    "references": "meta.bib",
    "grade_mean": "stat.mean",
    "probability_combined": "stat.probability",
    "flagged_by": "meta.number",
    "grader": "obs.observer",
    "seconds_looked": "time.duration",
    "stage": "meta.note",
    "reason": "meta.code.error",
    "detail": "meta.note",
    "separation_arcsec": "pos.angDistance",
    "photometry_score": "stat.likelihood",
}
_MEMBER = "score_"


def ucd_of(name: str) -> str | None:
    """UCD of a column; None where it has none."""
    return _UCDS.get(name, "stat.likelihood" if name.startswith(_MEMBER) else None)


def told(field: pa.Field, key: str) -> str:
    """`unit` or `description` of a column; empty where it has none."""
    metadata: dict[bytes, bytes] = field.metadata or {}
    return metadata.get(key.encode(), b"").decode(errors="replace")


def to_astropy(table: pa.Table, name: str = "") -> Table:
    """The same rows as an astropy Table: columns with unit, description and `meta["ucd"]`, text as
    `str`, missing values masked. name: of the table, for VOTable and FITS."""
    from astropy.table import Table

    columns = [_column(field, table[field.name]) for field in table.schema]
    return Table(
        columns, names=table.column_names, meta={"name": name} if name else None, copy=False
    )


def _column(field: pa.Field, values: pa.ChunkedArray) -> Any:
    from astropy.table import Column, MaskedColumn

    if pa.types.is_null(values.type):  # `SELECT NULL`: text, as in files
        values = values.cast(pa.string())
    meta = {} if ucd_of(field.name) is None else {"ucd": ucd_of(field.name)}
    about = {
        "name": field.name,
        "unit": told(field, "unit") or None,
        "description": told(field, "description") or None,
        "meta": meta,
    }
    if not values.null_count:
        return Column(_array(values), **about)
    filled = values.fill_null(_stand_in(values.type))
    return MaskedColumn(_array(filled), mask=pc.is_null(values).to_numpy(), **about)


def _array(values: pa.ChunkedArray) -> np.ndarray:
    if _is_text(values.type):
        found = values.to_pylist()
        return np.array(found, dtype=np.str_) if found else np.empty(0, "U1")
    return np.asarray(values.to_numpy())


def _is_text(kind: pa.DataType) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))


def _stand_in(kind: pa.DataType) -> Any:
    if _is_text(kind):
        return ""
    return np.nan if pa.types.is_floating(kind) else pa.scalar(0).cast(kind)
