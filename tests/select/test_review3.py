"""Findings of a review: columns of kinds that are accepted and then not read rightly."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from lenspipe.config import Sources
from lenspipe.select.cuts import compile_cuts
from lenspipe.select.sources import list_parts, open_view, read_part


def test_rows_are_taken_from_a_catalogue_of_string_views(tmp_path: Path) -> None:
    """As stage `select` reads what survives the cuts: a part of the rows."""
    table = pa.table(
        {
            "object_id": pa.array(["a", "b", "c"], pa.string_view()),
            "ra": [1.0, 2.0, 3.0],
            "dec": [1.0, 2.0, 3.0],
        }
    )
    pq.write_table(table, tmp_path / "a.parquet")
    sources = Sources(path=".")
    view = open_view(sources, str(tmp_path))
    [part] = list_parts(sources, str(tmp_path))
    found = read_part(part, view, ["object_id"], rows=np.array([0, 2]))
    assert found.column(0).to_pylist() == ["a", "c"]


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
