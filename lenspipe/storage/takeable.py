"""Text and bytes that Arrow holds as views, in the encodings that its functions know.

Writers of newer kinds (Polars, DuckDB, `pa.string_view`) leave such columns in Parquet. pyarrow
casts them, and has no function that takes or filters their rows.
"""

from __future__ import annotations

import pyarrow as pa


def takeable_type(kind: pa.DataType) -> pa.DataType:
    """The same type without views, in lists and structures too."""
    if pa.types.is_string_view(kind):
        return pa.string()
    if pa.types.is_binary_view(kind):
        return pa.binary()
    if pa.types.is_list(kind):
        return pa.list_(_takeable_field(kind.value_field))
    if pa.types.is_large_list(kind):
        return pa.large_list(_takeable_field(kind.value_field))
    if pa.types.is_struct(kind):
        return pa.struct([_takeable_field(field) for field in kind])
    return kind


def takeable_schema(schema: pa.Schema) -> pa.Schema:
    """The same columns without views."""
    return pa.schema([_takeable_field(field) for field in schema], schema.metadata)


def takeable(table: pa.Table) -> pa.Table:
    """The same rows without views; no copy where there are none."""
    schema = takeable_schema(table.schema)
    return table if schema == table.schema else table.cast(schema)


def _takeable_field(field: pa.Field) -> pa.Field:
    return field.with_type(takeable_type(field.type))
