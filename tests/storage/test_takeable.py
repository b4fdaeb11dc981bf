"""Columns of views become what Arrow can take rows of."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import pytest

from lenspipe.storage.takeable import takeable

LONG = "longer than the twelve bytes that a view holds in itself"


@pytest.mark.parametrize(
    ("kind", "plain", "values"),
    [
        (pa.string_view(), pa.string(), ["a", None, LONG]),
        (pa.binary_view(), pa.binary(), [b"a", None, LONG.encode()]),
        (pa.list_(pa.string_view()), pa.list_(pa.string()), [["a", LONG], None, []]),
        (pa.large_list(pa.string_view()), pa.large_list(pa.string()), [["a", LONG], None, []]),
        (
            pa.struct([("text", pa.string_view())]),
            pa.struct([("text", pa.string())]),
            [{"text": "a"}, None, {"text": LONG}],
        ),
        (pa.large_string(), pa.large_string(), ["a", None, LONG]),
        (pa.float32(), pa.float32(), [1.0, None, 2.0]),
    ],
    ids=str,
)
def test_rows_can_be_taken(kind: pa.DataType, plain: pa.DataType, values: list[Any]) -> None:
    table = pa.table({"x": pa.array(values, kind), "n": [1, 2, 3]})
    found = takeable(table)
    assert found.schema.field("x").type == plain
    assert found.to_pylist() == table.to_pylist()
    assert found.take(pa.array([2, 0]))["x"].to_pylist() == [values[2], values[0]]


def test_a_table_without_views_is_the_same_one() -> None:
    table = pa.table({"x": ["a"]})
    assert takeable(table) is table
