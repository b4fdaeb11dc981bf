"""Columns of the survey's own catalogue that candidates bring along: magnitudes, a redshift."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence

import pyarrow as pa
import pyarrow.compute as pc

from lenspipe.catalogue.candidates import OWN_NAMES
from lenspipe.errors import InputError

FIELD = "sources.keep_columns"
_NAME = re.compile(r"(?!__|zarr\.json$)[^\x00-\x1f\x7f./\\][^\x00-\x1f\x7f/\\]{0,59}")
_ABOUT = {"unit": "", "description": "of the survey's catalogue"}


def check_kept(names: Sequence[str], schema: pa.Schema) -> None:
    """InputError where the candidates' table could not hold a column: it has one of that name, the
    name is listed twice or no name of an array, or its values are no numbers, text or booleans."""
    # Queries and FITS know no capitals.
    folded = [name.casefold() for name in names]
    for name, alike in zip(names, folded, strict=True):
        if alike in OWN_NAMES or alike.startswith("score_"):
            raise InputError(FIELD, "names that candidates do not have anyway", name)
        if folded.count(alike) > 1:
            raise InputError(FIELD, "each column once", f"{name} {folded.count(alike)} times")
        if not _NAME.fullmatch(name):
            expected = "names of at most 60 characters without / or backslash"
            raise InputError(FIELD, expected, repr(name))
        kind = schema.field(name).type
        if not (_is_number(kind) or pa.types.is_string(kind) or pa.types.is_boolean(kind)):
            raise InputError(f"{FIELD}: column {name}", "numbers, text or booleans", f"{kind}")


def with_kept(table: pa.Table, sources: pa.Table, names: Collection[str]) -> pa.Table:
    """`table` with columns of `sources` beside it, by `object_id`.

    Missing numbers are NaN, integers and booleans with missing values floats so; missing text is
    empty.
    """
    at = pc.index_in(table["object_id"], sources["object_id"].combine_chunks())
    for name in names:
        values = _without_nulls(sources[name].take(at))
        table = table.append_column(pa.field(name, values.type, metadata=_ABOUT), values)
    return table


def _without_nulls(column: pa.ChunkedArray) -> pa.ChunkedArray:
    kind = column.type
    if pa.types.is_string(kind):
        return column.fill_null("")
    if pa.types.is_decimal(kind):
        column = column.cast(pa.float64())
    if not column.null_count:
        return column
    if pa.types.is_boolean(kind):
        column = column.cast(pa.int8())
    if not pa.types.is_floating(column.type):
        column = column.cast(pa.float64(), safe=False)
    return column.fill_null(float("nan"))


def _is_number(kind: pa.DataType) -> bool:
    return bool(
        pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind)
    )
