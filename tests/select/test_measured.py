"""What was not measured becomes NULL, in columns of every kind of number."""

from __future__ import annotations

import math
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lenspipe.select.measured import known, with_nulls

LISTED = (-999.0, 99.99, 1e30, -0.5)
_WHOLE = st.integers(-1000, 1000) | st.just(-999)
_HUNDREDTHS = st.integers(-100_000, 100_000) | st.sampled_from([-99_900, 9999, -50])
_DOUBLE = st.floats() | st.sampled_from(LISTED)
# Kind of a column -> what stands in it.
KINDS: dict[pa.DataType, st.SearchStrategy[Any]] = {
    pa.float64(): _DOUBLE,
    pa.float32(): st.floats(width=32) | st.sampled_from([-999.0, -0.5]),
    pa.int16(): _WHOLE,
    pa.int64(): _WHOLE,
    pa.decimal128(22, 2): _HUNDREDTHS.map(lambda n: Decimal(n) / 100),
    pa.decimal128(5, 0): _WHOLE.map(Decimal),
    pa.decimal256(60, 2): _HUNDREDTHS.map(lambda n: Decimal(n) / 100),
}


def _measured(value: Any) -> bool:
    """The rule as `docs/rules.md` says it."""
    if value is None or not math.isfinite(value):
        return False
    written = value if isinstance(value, Decimal) else Decimal(repr(value))
    return all(written != Decimal(repr(missing)) for missing in LISTED)


@settings(max_examples=200, deadline=None)
@given(data=st.data(), kind=st.sampled_from(list(KINDS)))
def test_listed_values_are_null_in_every_kind_of_column(
    data: st.DataObject, kind: pa.DataType
) -> None:
    pieces = data.draw(st.lists(st.lists(st.none() | KINDS[kind], max_size=8), max_size=3))
    column = pa.chunked_array([pa.array(piece, kind) for piece in pieces], kind)
    table = pa.table({"mag": column, "ra": column})
    found = with_nulls(table, LISTED)
    assert found.schema == table.schema
    wanted = [_measured(value) for value in column.to_pylist()]
    assert found["mag"].is_valid().to_pylist() == wanted
    assert found["mag"].drop_null().equals(column.filter(pa.chunked_array([wanted], pa.bool_())))
    if pa.types.is_decimal(kind):  # a position is not compared with the list
        assert found["ra"].equals(column)
        return
    for chunk in column.chunks:
        mask = known(chunk, LISTED)
        truth = [_measured(value) for value in chunk.to_pylist()]
        assert truth == ([True] * len(chunk) if mask is None else mask.tolist())


@pytest.mark.parametrize("kind", [pa.decimal128(6, 2), pa.decimal256(50, 2)], ids=str)
def test_a_listed_value_that_a_decimal_cannot_hold_is_in_no_row(kind: pa.DataType) -> None:
    column = pa.array([Decimal("1.25"), None, Decimal("-99.90")], kind)
    found = with_nulls(pa.table({"mag": column}), (1e60, 1.251, -99.9))
    assert found["mag"].to_pylist() == [Decimal("1.25"), None, None]
