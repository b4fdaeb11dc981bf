"""A table of results on a terminal."""

from __future__ import annotations

import re
from typing import Any

import pyarrow as pa

from lenspipe.errors import printable

MOST_ROWS = 40
_WIDEST = 60
_TOO_LONG = "…"
# ra, RAJ2000, DEJ2000, dec_deg, GLON; ra_1 of a join
_PLACE = re.compile(r"_?(ra|dec?|glon|glat)(_?j?2000)?(_?deg)?(_\d+)?", re.IGNORECASE)


def show(table: pa.Table, most: int = MOST_ROWS) -> list[str]:
    """Lines: names, the first rows in columns, and how many rows are left out."""
    head = table.slice(0, most)
    columns = [_column(field.name, head[k]) for k, field in enumerate(table.schema)]
    widths = [max(map(len, column)) for column in columns]
    right = [_is_number(field.type) for field in table.schema]
    lines = []
    for cells in zip(*columns, strict=True):
        padded = [
            f"{cell:>{width}}" if aligned else f"{cell:<{width}}"
            for cell, width, aligned in zip(cells, widths, right, strict=True)
        ]
        lines.append("  ".join(padded).rstrip())
    left = table.num_rows - head.num_rows
    lines.append(f"{table.num_rows:,} rows" + (f", {left:,} not shown" if left else ""))
    return lines


def _column(name: str, values: pa.ChunkedArray) -> list[str]:
    place = _PLACE.fullmatch(name) is not None and values.type == pa.float64()
    return [printable(name), *(_cell(place, value) for value in values.to_pylist())]


def _cell(place: bool, value: Any) -> str:
    if value is None:
        return "–"
    if isinstance(value, float):
        # A position to 0.4 mas; of anything else what a person compares.
        return f"{value:.7f}" if place else f"{value:.5g}"
    text = printable(str(value))
    return text if len(text) <= _WIDEST else text[: _WIDEST - 1] + _TOO_LONG


def _is_number(kind: pa.DataType) -> bool:
    return bool(
        pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind)
    )
