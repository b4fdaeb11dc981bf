"""Findings of a review: columns of kinds that are accepted and then not read rightly."""

from __future__ import annotations

import pyarrow as pa

from lenspipe.select.cuts import compile_cuts


def test_a_listed_missing_value_is_unknown_in_a_decimal_column_too() -> None:
    column = pa.array([-999, 5]).cast(pa.decimal128(22, 2))
    table = pa.table({"mag": column})
    result = compile_cuts({"bright": "mag < 10"}, table.schema).apply(table, (-999.0,))
    assert result.kept.tolist() == [1]
    assert result.removed["bright"].unknown == 1


def test_a_listed_missing_value_is_unknown_in_arithmetic_on_decimals() -> None:
    """`docs/rules.md`: a number that `sources.missing_values` lists is NULL."""
    table = pa.table({"mag": pa.array([-999, 5]).cast(pa.decimal128(22, 2)), "ref": [3.0, 3.0]})
    result = compile_cuts({"red": "mag - ref < 10"}, table.schema).apply(table, (-999.0,))
    assert result.kept.tolist() == [1]


def test_a_cut_on_a_column_that_duckdb_has_no_type_for_is_refused_in_one_line() -> None:
    import pytest

    from lenspipe.errors import InputError

    with pytest.raises(InputError, match=r"cuts\.c"):
        compile_cuts({"c": "x > 1"}, pa.schema([("x", pa.decimal256(60, 2))]))
