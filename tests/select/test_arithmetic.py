"""Cuts on arrays say what DuckDB says of them, row by row."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from lenspipe.errors import InputError
from lenspipe.select.cuts import CompiledCuts, compile_cuts

MISSING = (-999.0,)
FLOATS = [0.0, -0.0, 1.2, 1.0, -3.5, 21.5, 3.6, 1e-30, 3e38, -999.0, float("nan"), float("inf")]
KINDS = {"f": pa.float32(), "d": pa.float64(), "ra": pa.float64(), "n": pa.int16(), "k": pa.int64()}


def _near(value: float) -> list[float]:
    """The value and its neighbours in single precision."""
    single = np.float32(value)
    with np.errstate(over="ignore"):
        return [
            value,
            *(float(np.nextafter(single, np.float32(side))) for side in (-np.inf, np.inf)),
        ]


_FLOAT = st.none() | st.sampled_from([near for value in FLOATS for near in _near(value)])
_WHOLE = st.none() | st.sampled_from([-999, -1, 0, 1, 2, 16, 32767])
_ROW = st.tuples(_FLOAT, _FLOAT, _FLOAT, _WHOLE, _WHOLE)

_COLUMN = st.sampled_from(["f", "d", "ra"])
_NUMBER = st.sampled_from(
    [
        "0",
        "1",
        "1.2",
        "-3.5",
        "21.5",
        "3.6",
        "1e0",
        "16777217",
        "1.00000000000000000001",
        "1e300",
        "NULL",
    ]
)
_LEAF = _COLUMN | _NUMBER


def _sums(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    two = st.tuples(inner, st.sampled_from("+-*/"), inner).map(" ".join).map("({})".format)
    return two | inner.map("abs({})".format) | inner.map("(- {})".format)


_VALUE = st.recursive(_LEAF, _sums, max_leaves=4)
_COMPARED = st.tuples(_VALUE, st.sampled_from(["<", "<=", ">", ">=", "=", "<>", "!="]), _VALUE).map(
    " ".join
)
_BETWEEN = st.tuples(_VALUE, _VALUE, _VALUE).map(lambda v: f"{v[0]} BETWEEN {v[1]} AND {v[2]}")
_COUNTED = st.tuples(
    st.sampled_from("nk"),
    st.sampled_from(["<", ">=", "=", "<>"]),
    st.sampled_from(["0", "2", "-999", "40000"]),
).map(" ".join)
_NULL = st.tuples(_COLUMN | st.sampled_from("nk"), st.sampled_from(["IS NULL", "IS NOT NULL"])).map(
    " ".join
)


def _logic(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    both = st.tuples(inner, st.sampled_from(["AND", "OR"]), inner).map(" ".join)
    return both.map("({})".format) | inner.map("NOT ({})".format)


_CUT = st.recursive(_COMPARED | _BETWEEN | _COUNTED | _NULL, _logic, max_leaves=4)


def _as_sql(cuts: CompiledCuts) -> CompiledCuts:
    return replace(cuts, cuts=tuple(replace(cut, condition=None) for cut in cuts.cuts))


def _table(rows: list[tuple[float | int | None, ...]]) -> pa.Table:
    columns = zip(*rows, strict=True)
    arrays = [pa.array(c, k) for c, k in zip(columns, KINDS.values(), strict=True)]
    return pa.table(arrays, names=list(KINDS))


@settings(max_examples=80, deadline=None)
@given(cut=_CUT, rows=st.lists(_ROW, min_size=1, max_size=30))
def test_arrays_agree_with_the_database(cut: str, rows: list[tuple[float | None, ...]]) -> None:
    table = _table(rows)
    try:
        plain = compile_cuts(
            {"first": "n >= 0", "cut": f"{cut} OR (f > 1 AND f < 1)"}, table.schema
        )
    except InputError as error:  # products of whole numbers or decimals too long for DuckDB
        assume("Overflow" not in str(error) and "Needed scale" not in str(error))
        raise
    assert plain.cuts[0].condition is not None
    ours, theirs = plain.apply(table, MISSING), _as_sql(plain).apply(table, MISSING)
    assert ours.kept.tolist() == theirs.kept.tolist()
    assert ours.removed == theirs.removed


@pytest.mark.parametrize(
    ("cut", "plain"),
    [
        ("f < 21.5", True),
        ("f - d BETWEEN 1.2 AND 3.6", True),
        ("NOT (abs(f - d) > 1 OR f / d < 2) AND ra IS NOT NULL", True),
        ("n >= 2 AND k <> 40000000000", True),
        ("1 / (f / d) < 2", False),  # 1 / (1 / 0) is unknown in SQL, and 0 on arrays
        ("sqrt(f) > 1", False),
        ("f <> NULL", False),  # unknown, and no number of an array is
        ("f + NULL > 1", False),
        ("NOT (f BETWEEN 1 AND NULL)", False),
        ("n + 1 > 2", False),  # whole numbers overflow
        ("n > 2.5", False),
        ("f IN (1, 2)", False),
        ("f - d IS NULL", False),
        ("coalesce(f, 1.0) > 1", False),
        ("k / n > 1", False),
        ("f IS DISTINCT FROM d", False),
    ],
)
def test_what_arrays_take_and_what_they_leave(cut: str, plain: bool) -> None:
    compiled = compile_cuts({"cut": cut}, pa.schema(list(KINDS.items())))
    assert (compiled.cuts[0].condition is not None) is plain


def test_cuts_of_both_kinds_are_counted_in_their_order() -> None:
    rng = np.random.default_rng(3)
    f = rng.normal(0, 1, 200_000).astype(np.float32)
    f[::50] = np.nan
    d = rng.normal(0, 1, 200_000)
    table = pa.table({"f": f, "d": pa.array(d, mask=d > 2)})
    cuts = compile_cuts(
        {"a": "f > -1", "b": "sqrt(d) < 1", "c": "d < 0.5", "e": "cbrt(f) > 0.1"}, table.schema
    )
    assert [cut.condition is not None for cut in cuts.cuts] == [True, False, True, False]
    mixed, theirs = cuts.apply(table), _as_sql(cuts).apply(table)
    np.testing.assert_array_equal(mixed.kept, theirs.kept)
    assert mixed.removed == theirs.removed
    assert sum(c.false + c.unknown for c in mixed.removed.values()) == 200_000 - len(mixed.kept)
