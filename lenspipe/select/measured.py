"""What of a catalogue was measured: the one rule for missing values.

A number that is NULL, not finite, or listed in `sources.missing_values` was not measured; the list
does not hold for id and position, nor for what finds a source's pixels. Text that is no UTF-8 is
missing: what reads it later would fail on the whole table.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from decimal import Decimal
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from jaxtyping import Bool, Shaped

RESERVED = ("object_id", "ra", "dec")


def with_nulls(
    table: pa.Table, missing_values: Sequence[float], exact: Collection[str] = ()
) -> pa.Table:
    """The table with what was not measured as NULL. exact: columns that the list does not hold for,
    beside id and position."""
    for k, field in enumerate(table.schema):
        listed = () if field.name in exact else listed_for(field.name, missing_values)
        if pa.types.is_floating(field.type) or (pa.types.is_integer(field.type) and listed):
            chunks = [_chunk_with_nulls(chunk, listed) for chunk in table.column(k).chunks]
            table = table.set_column(k, field, pa.chunked_array(chunks, field.type))
        elif pa.types.is_decimal(field.type) and listed:
            table = table.set_column(k, field, _decimals_with_nulls(table.column(k), listed))
        elif pa.types.is_string(field.type) and not _is_utf8(table.column(k)):
            texts = [_text(value) for value in table.column(k).cast(pa.binary()).to_pylist()]
            table = table.set_column(k, field, pa.chunked_array([pa.array(texts, field.type)]))
    return table


def listed_for(column: str, missing_values: Sequence[float]) -> Sequence[float]:
    """Which of the survey's missing values hold for a column."""
    return () if column in RESERVED else missing_values


def numbers(array: pa.Array) -> Shaped[np.ndarray, " n"]:
    """A numeric array's values without a copy; what stands at a NULL is arbitrary."""
    values = np.frombuffer(array.buffers()[1] or b"", array.type.to_pandas_dtype())
    return values[array.offset : array.offset + len(array)]


def known(array: pa.Array, listed: Sequence[float]) -> Bool[np.ndarray, " n"] | None:
    """Where a numeric array was measured; None where all of it was."""
    mask = _measured(numbers(array), listed)
    if array.null_count:
        mask &= array.is_valid().to_numpy(zero_copy_only=False)
    return None if mask.all() else mask


def _chunk_with_nulls(chunk: pa.Array, listed: Sequence[float]) -> pa.Array:
    """The chunk, untouched where all of it was measured (the usual case costs no copy)."""
    mask = _measured(numbers(chunk), listed)
    return chunk if mask.all() else pc.if_else(pa.array(mask), chunk, pa.scalar(None, chunk.type))


def _decimals_with_nulls(column: pa.ChunkedArray, listed: Sequence[float]) -> pa.ChunkedArray:
    """The column without the listed values. They are compared as they are written: 99.99 is that,
    not the double next to it, and one that the column's type cannot hold is in no row."""
    for missing in listed:
        try:
            value = pa.scalar(Decimal(repr(float(missing))).normalize(), column.type)
        except pa.ArrowInvalid:
            continue
        null = pa.scalar(None, column.type)
        column = pc.if_else(pc.equal(column, value), null, column)
    return column


def _is_utf8(column: pa.ChunkedArray) -> bool:
    try:
        column.validate(full=True)
    except pa.ArrowInvalid:
        return False
    return True


def _text(value: bytes | None) -> str | None:
    try:
        return None if value is None else value.decode()
    except UnicodeDecodeError:
        return None


def _measured(values: Shaped[np.ndarray, " n"], listed: Sequence[float]) -> Bool[np.ndarray, " n"]:
    is_float = values.dtype.kind == "f"
    mask = np.isfinite(values) if is_float else np.ones(len(values), bool)
    for missing in listed:
        if is_float or (missing == int(missing) and _fits(int(missing), values.dtype)):
            mask &= values != values.dtype.type(missing)
    return mask


def _fits(value: int, dtype: np.dtype[Any]) -> bool:
    limits = np.iinfo(dtype)
    return bool(limits.min <= value <= limits.max)
