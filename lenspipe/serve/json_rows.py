"""Rows of tables as JSON that every client reads: no NaN, no integer that JavaScript rounds."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from typing import Any

import pyarrow as pa

_SAFE_INTEGER = 2**53 - 1


def rows_of(table: pa.Table) -> list[dict[str, Any]]:
    """One object a row. NaN and infinity are null; ids are text, since 64-bit integers do not
    survive JavaScript, and so are other integers beyond 2^53."""
    return [{name: plain(name, value) for name, value in row.items()} for row in table.to_pylist()]


def plain(name: str, value: Any) -> Any:
    """One value as JSON has it."""
    if value is None or isinstance(value, (bool, str)):
        return value
    if isinstance(value, int):
        return str(value) if name == "object_id" or abs(value) > _SAFE_INTEGER else value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {str(key): plain("", inner) for key, inner in value.items()}
    if isinstance(value, Iterable) and not isinstance(value, (bytes, bytearray)):
        return [plain("", inner) for inner in value]
    return str(value)


def encoded(table: pa.Table) -> bytes:
    """Columns and rows in one JSON object."""
    columns = [{"name": field.name, "type": str(field.type)} for field in table.schema]
    return json.dumps({"columns": columns, "rows": rows_of(table)}).encode()
