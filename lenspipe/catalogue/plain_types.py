"""Columns of any type as files of few types hold them: numbers, truth values and text."""

from __future__ import annotations

from collections.abc import Callable

import pyarrow as pa
import pyarrow.compute as pc

from lenspipe.errors import InputError

_INT64 = 2**63


def plain(rows: pa.Table, by_type: bool = False) -> pa.Table:
    """Rows in which every column is of numbers, truth values or text; fields keep what is told of
    them.

    Times become ISO 8601 text, those with a zone in UTC; a column of type NULL becomes text;
    numbers that few formats have become wider ones (float16, int8). Whole decimals (DuckDB's
    HUGEINT, sums of integers) and unsigned integers of 64 bits become int64 where all of them fit;
    other decimals float64. by_type: decimals and unsigned integers stay, so that the type of each
    column follows from its own type, as writers in pieces need it. InputError names the first
    column of another type.
    """
    columns = [_plain(f, rows[k], by_type) for k, f in enumerate(rows.schema)]
    fields = [f.with_type(c.type) for f, c in zip(rows.schema, columns, strict=True)]
    return pa.table(columns, schema=pa.schema(fields))


def as_plain_schema(schema: pa.Schema) -> pa.Schema:
    """What `plain(…, by_type=True)` makes of rows of that schema."""
    return plain(schema.empty_table(), by_type=True).schema


def _plain(field: pa.Field, values: pa.ChunkedArray, by_type: bool) -> pa.ChunkedArray:
    kind = values.type
    if pa.types.is_dictionary(kind):
        return _plain(field, values.cast(kind.value_type), by_type)
    if kind in _CAST:
        return values.cast(_CAST[kind])
    if pa.types.is_decimal(kind) or kind == pa.uint64():
        return values if by_type else _number(values)
    if any(is_kind(kind) for is_kind in _AS_THEY_ARE):
        return values
    if pa.types.is_temporal(kind) and not _is_span(kind):
        return _iso(field.name, values)
    raise InputError(field.name, "numbers, truth values, text or times, for this format", kind)


_CAST = {
    pa.float16(): pa.float32(),
    pa.int8(): pa.int16(),
    pa.null(): pa.string(),
    pa.string_view(): pa.string(),
}
_AS_THEY_ARE: tuple[Callable[[pa.DataType], bool], ...] = (
    pa.types.is_boolean,
    pa.types.is_integer,
    pa.types.is_floating,
    pa.types.is_string,
    pa.types.is_large_string,
)


def _is_span(kind: pa.DataType) -> bool:
    return bool(pa.types.is_duration(kind) or pa.types.is_interval(kind))


def _number(values: pa.ChunkedArray) -> pa.ChunkedArray:
    """int64 where these are whole and all fit; else float64, of uint64 themselves."""
    if pa.types.is_decimal(values.type) and values.type.scale > 0:
        return values.cast(pa.float64())
    ends = pc.min_max(values).as_py()
    if ends["min"] is None or -_INT64 <= ends["min"] <= ends["max"] < _INT64:
        return values.cast(pa.int64())
    return values if values.type == pa.uint64() else values.cast(pa.float64())


def _iso(name: str, values: pa.ChunkedArray) -> pa.ChunkedArray:
    kind = values.type
    zoned = pa.types.is_timestamp(kind) and kind.tz is not None
    if zoned:  # the instant stays, its wall clock becomes that of UTC
        values = values.cast(pa.timestamp(kind.unit, "UTC")).cast(pa.timestamp(kind.unit))
    text = values.cast(pa.string())
    if pc.any(pc.match_substring(text, "out of range")).as_py():
        raise InputError(name, "times that have a year", "infinity")
    text = pc.replace_substring(text, " ", "T", max_replacements=1)
    return pc.binary_join_element_wise(text, "Z", "") if zoned else text
