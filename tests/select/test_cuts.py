"""Cuts: what they keep and count against plain numpy, and what is refused."""

from __future__ import annotations

import math
import os
import pickle
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import cache
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lenspipe.errors import HopelessError, InputError
from lenspipe.select import expressions
from lenspipe.select.cuts import CompiledCuts, CutCount, compile_cuts
from lenspipe.select.database import Limits, cursor
from lenspipe.select.expressions import MAX_DEPTH

SCHEMA = pa.schema(
    [
        ("g", pa.float32()),
        ("i", pa.float64()),
        ("n", pa.int32()),
        ("name", pa.string()),
        ("taken", pa.timestamp("us")),
        ("star", pa.bool_()),
        ("Y", pa.float32()),
        ("y", pa.float32()),
        ('odd "name', pa.int64()),
    ]
)
CUTS = {
    "bright": "i < 21.5",
    "red": "g - i BETWEEN 1 AND 3",
    "ratio": "g / i > 0.5",
    "often": "n >= 2 OR g IS NULL",
}
_MAG = st.none() | st.sampled_from([0.0, 1.0, 20.0, 21.5, 23.0, -5.0])
_ROWS = st.lists(st.tuples(_MAG, _MAG, st.none() | st.integers(0, 4)), max_size=30)


def _table(rows: list[tuple[float | None, float | None, int | None]]) -> pa.Table:
    g, i, n = ([row[k] for row in rows] for k in range(3))
    return pa.table(
        {"g": pa.array(g, pa.float32()), "i": pa.array(i, pa.float64()), "n": pa.array(n, "int32")}
    )


@cache
def _compiled(threads: int) -> CompiledCuts:
    return compile_cuts(CUTS, _table([]).schema, Limits(threads=threads))


def _truths(g: float | None, i: float | None, n: int | None) -> list[bool | None]:
    """Each cut by hand, in three-valued logic."""
    both = g is not None and i is not None
    often = None if n is None else n >= 2
    return [
        None if i is None else i < 21.5,
        1 <= g - i <= 3 if both else None,  # type: ignore[operator]  # both are numbers
        g / i > 0.5 if both and i != 0 else None,  # type: ignore[operator]  # both are numbers
        True if (g is None or often) else often,
    ]


@settings(max_examples=60, deadline=None)
@given(rows=_ROWS, threads=st.sampled_from([1, 2]))
def test_kept_rows_and_counts_are_those_of_a_plain_evaluation(
    rows: list[tuple[float | None, float | None, int | None]], threads: int
) -> None:
    table = _table(rows)
    kept, counts = [], {name: [0, 0] for name in CUTS}
    for k, row in enumerate(rows):
        failing = ((n, t) for n, t in zip(CUTS, _truths(*row), strict=True) if t is not True)
        name, truth = next(failing, (None, None))
        if name is None:
            kept.append(k)
        else:
            counts[name][truth is None] += 1
    result = _compiled(threads).apply(table)
    assert result.kept.tolist() == kept
    assert result.removed == {name: CutCount(*pair) for name, pair in counts.items()}


def test_many_rows_keep_their_order_with_several_threads() -> None:
    rng = np.random.default_rng(0)
    i = rng.normal(21, 2, 600_000)
    for threads in (1, 2):
        cuts = compile_cuts(
            {"bright": "i < 21"}, pa.schema([("i", pa.float64())]), Limits(threads=threads)
        )
        result = cuts.apply(pa.table({"i": i}))
        np.testing.assert_array_equal(result.kept, np.flatnonzero(i < 21))
        assert result.removed["bright"].false == int((i >= 21).sum())


def test_no_cuts_keep_every_row() -> None:
    result = compile_cuts({}, SCHEMA).apply(pa.table({"g": [1.0, None]}))
    assert result.kept.tolist() == [0, 1]
    assert result.removed == {}


@pytest.mark.parametrize(
    ("cut", "unknown"),
    [
        ("g / i < 1", [0, 1]),  # 1/0 and 0/0
        ("ln(g) > -1e9 AND i < 1", [1, 2]),  # ln(0) and ln(-1)
        ("sqrt(g) >= 0", [2]),
        ("g - i - ln(g) * 0 < 5", [1, 2]),
        ("name::INTEGER > 3", [0, 1, 2]),
    ],
)
def test_what_is_no_number_is_unknown(cut: str, unknown: list[int]) -> None:
    table = pa.table({"g": [1.0, 0.0, -1.0], "i": [0.0, 0.0, 0.5], "name": ["a", "b", "c"]})
    result = compile_cuts({"cut": cut}, table.schema).apply(table)
    assert set(result.kept.tolist()) == {0, 1, 2} - set(unknown)
    assert result.removed["cut"] == CutCount(false=0, unknown=len(unknown))


def test_columns_that_differ_in_case_alone_stay_apart() -> None:
    table = pa.table({"Y": [1.0, 2.0], "y": [2.0, 1.0]})
    cuts = compile_cuts({"a": '"Y" > 1.5', "b": "y < 1.5"}, table.schema)
    assert cuts.apply(table).kept.tolist() == [1]


def test_a_name_in_other_capitals_is_found_where_it_is_the_only_one() -> None:
    table = pa.table({"gMag": [1.0, 2.0]})
    cuts = compile_cuts({"a": "GMAG > 1.5"}, table.schema)
    assert cuts.columns == ("gMag",)
    assert cuts.apply(table).kept.tolist() == [1]


@pytest.mark.parametrize(
    "cut",
    [
        "name LIKE 'x%' AND star",
        "CASE WHEN g > 1 THEN star ELSE NOT star END",
        "name LIKE '!%x!!' ESCAPE '!' OR name NOT LIKE 'x!' ESCAPE ''",
        "taken > '2010-01-01'",
        "n IN (1, 2) AND name NOT IN ('a', 'b')",
        "g > 1 -- a comment",
        '"odd ""name" > 2',
        "coalesce(g, i) < 21 AND n % 2 = 0 AND -g < 3 AND abs(g) > 0",
        "g IS DISTINCT FROM i",
        "(" * 200 + "g > 1" + ")" * 200,
    ],
)
def test_honest_expressions_are_taken_and_survive_a_pickle(cut: str) -> None:
    compiled = compile_cuts({"cut": cut}, SCHEMA)
    row = pa.Table.from_pylist([{"g": 2.0, "name": "x"}], schema=SCHEMA)
    again = pickle.loads(pickle.dumps(compiled))  # noqa: S301  # as Ray sends it to a task
    assert again.apply(row).removed.keys() == {"cut"}


@pytest.mark.parametrize(
    ("cut", "expected"),
    [
        ("", "expression"),
        ("g >", "syntax"),
        ("g > 1; DROP TABLE part", "syntax"),
        ("g > 1) FROM t WHERE (true", "more than that"),
        ("g > 1), (i > 1", "more than that"),
        ("g > 1) UNION SELECT (i > 1", "more than that"),
        ("g > 1) OR (1=1", "syntax"),
        ("g > 1;", "syntax"),
        ("g > 1) LIMIT (1", "more than that"),
        ("(SELECT 1) > 0", "subquery"),
        ("EXISTS (FROM '/etc/passwd')", "subquery"),
        ("read_text('/etc/passwd') IS NULL", "read_text()"),
        ("sum(g) > 1", "sum()"),
        ("sum(g) OVER () > 1", "window"),
        ("random() < g", "random()"),
        ("now() > taken", "now()"),
        ("current_user = name", "current_user"),
        ("repeat(name, 1000000000000) > 'b'", "repeat()"),
        ("main.abs(g) > 1", "abs()"),
        ("COLUMNS(*) > 1", "star"),
        ("*", "star"),
        ("$1 > g", "found"),
        ("list_filter([1], x -> x > g)[1] > 0", "found"),
        ("t.g > 1", "t.g"),
        ("gg > 1", "near: g"),
        ("g", "of type FLOAT"),
        ("g + 1", "of type FLOAT"),
        ("1 < 2", "no column"),
        ("NULL", "no column"),
        ("name > 1", '"name" (VARCHAR)'),
        ("g > 'abc'", "'abc' (VARCHAR)"),
        ("g > '1'", "'1' (VARCHAR)"),
        ("n IN ('a', 'b')", "VARCHAR"),
        ("g BETWEEN 'a' AND 3", "VARCHAR"),
        ("'1' + g > 2", "VARCHAR"),
        ("coalesce(g, 'a') = 1", "VARCHAR"),
        ("(g > 1) = star = name", "found"),
        ("Y > 1 AND yy > 1", "yy"),
        ("(" * 2000 + "g > 1" + ")" * 2000, "depth"),
        ("g" + " + 1" * 2000 + " > 2", "depth"),
        ("taken > '2019-02-30'", "2019-02-30"),
        ("taken > 'last year'", "last year"),
        ("taken BETWEEN '2019-01-01' AND '2019-13-01'", "2019-13-01"),
        ("taken IN ('2019-01-01', '2019-13-01')", "2019-13-01"),
        ("coalesce(taken, 'never') > '2019-01-01'", "never"),
        ("CASE WHEN star THEN '2019-13-01' ELSE taken END > '2019-01-01'", "2019-13-01"),
        ("n < CAST('many' AS INTEGER)", "many"),
        ("CASE WHEN n = 1 THEN CAST('many' AS INTEGER) ELSE 5 END > 2", "many"),
        ("CAST(lower('MANY') AS INTEGER) > coalesce(n, 2)", "many"),
        ("regexp_matches(name, '[')", "missing ]"),
        ("CAST(n AS VARCHAR) LIKE '1%!' ESCAPE '!'", "does not end in its ESCAPE !, found '1%!'"),
        ("name NOT LIKE 'a!!!' ESCAPE '!'", "does not end in its ESCAPE !"),
        ("name LIKE '!' ESCAPE '!'", "does not end in its ESCAPE !"),
        ("name LIKE 'a%' ESCAPE 'bb'", "an ESCAPE of one ASCII character, found 'bb'"),
        ("name LIKE 'a%' ESCAPE 'é'", "an ESCAPE of one ASCII character"),
        ("name NOT LIKE name ESCAPE name", "plain texts"),
        ("name LIKE name ESCAPE '!'", "plain texts"),
        ("name LIKE 'a%' ESCAPE lower('B')", "plain texts"),
        ("like_escape(name, 'a!')", "plain texts"),
        ("g > 1" + " " * 10_000, "characters"),
    ],
)
def test_a_cut_that_cannot_serve_is_refused_in_one_line(cut: str, expected: str) -> None:
    with pytest.raises(InputError) as caught:
        compile_cuts({"fine": "g > 1", "wrong": cut}, SCHEMA)
    assert caught.value.field == "cuts.wrong"
    assert expected in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("cut", "kept", "count"),
    [
        ("CAST(coalesce(name, 'none') AS INTEGER) > 2", [0], CutCount(false=1, unknown=2)),
        ("CAST(CASE WHEN name IS NULL THEN '-' ELSE name END AS INTEGER) > 2", [0], CutCount(1, 2)),
        ("CAST(substr(coalesce(name, 'abc'), 1, 1) AS INTEGER) > 0", [0, 3], CutCount(0, 2)),
        ("CAST(coalesce(n, 300) AS TINYINT) > 1", [1, 3], CutCount(1, 1)),
        ("CAST(coalesce(n, 300) AS TINYINT) > 1 OR name IS NULL", [1, 3], CutCount(1, 1)),
        ("CAST(name AS DATE) > '2019-01-01'", [], CutCount(0, 4)),
    ],
)
def test_a_cut_that_fails_on_some_rows_is_unknown_there(
    cut: str, kept: list[int], count: CutCount
) -> None:
    """Rows without a name or a number are some of them, and no reason to refuse the cut."""
    table = pa.table({"name": ["3", "x", None, "1"], "n": pa.array([1, 2, None, 3], pa.int32())})
    result = compile_cuts({"odd": cut}, table.schema).apply(table)
    assert result.kept.tolist() == kept
    assert result.removed == {"odd": count}


def test_what_fails_for_a_cut_is_not_the_catalogues_fault() -> None:
    """`TRY` makes NULL of what rows say, but of some mistakes it makes nothing."""
    table = pa.table({"name": ["a%"]})
    compiled = compile_cuts({"odd": "length(name) > 1"}, table.schema)
    [cut] = compiled.cuts
    slipped = replace(compiled, cuts=(replace(cut, sql="TRY(name LIKE 'a!' ESCAPE 'bb')"),))
    with pytest.raises(HopelessError, match=r"^cuts\.odd: expected .* Invalid escape string.*$"):
        slipped.apply(table)


@pytest.mark.parametrize(
    ("kind", "cut"),
    [
        (pa.timestamp("s", "UTC"), "name > '2020-01-01'"),  # DuckDB cannot read the row
        (pa.timestamp("s"), "CAST(name AS VARCHAR) > '1'"),  # an internal error of DuckDB
    ],
    ids=str,
)
def test_a_value_that_the_database_cannot_read_spoils_its_rows_only(
    kind: pa.DataType, cut: str
) -> None:
    wrong, fine = (pa.table({"name": pa.array([2, at], kind)}) for at in (2**62, 2_000_000_000))
    compiled = compile_cuts({"odd": cut}, fine.schema)
    with pytest.raises(duckdb.Error):
        compiled.apply(wrong)
    assert 1 in compiled.apply(fine).kept.tolist()


@pytest.mark.parametrize("result", ["'{}'", "{}.5"])
def test_a_long_case_is_looked_at_a_few_times_only(
    result: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """How often its nodes are gone through grows as it does, not as its square."""
    copied = 0
    canonical = expressions.canonical

    def counting(tree: expressions.Node) -> Any:
        nonlocal copied
        copied += len(str(tree))
        return canonical(tree)

    monkeypatch.setattr(expressions, "canonical", counting)
    lengths = []
    for branches in (10, 80):
        whens = " ".join(f"WHEN g>{k} THEN {result.format(k)}" for k in range(branches))
        copied = 0
        compile_cuts({"long": f"CASE {whens} END = {result.format(0)}"}, SCHEMA)
        lengths.append(copied)
    assert lengths[1] < 16 * lengths[0]


def test_nested_comparisons_are_bounded() -> None:
    cut = "g > 1"
    for _ in range(12):
        cut = f"CASE WHEN {cut} THEN g / i ELSE i / g END > 1"
    with pytest.raises(InputError, match="nested comparisons"):
        compile_cuts({"deep": cut}, SCHEMA)


_DEEP = {
    "case": lambda n: "CASE WHEN g > 1 THEN " * n + "true" + " END" * n,
    "not": lambda n: "NOT (" * n + "g > 1" + ")" * n,
    "sum": lambda n: "(" * n + "g" + " + 1)" * n + " > 1",
    "abs": lambda n: "abs(" * n + "g" + ") " * n + "> 1",
}


@pytest.mark.parametrize("levels", [200, 250, 300, 320])
@pytest.mark.parametrize("kind", list(_DEEP))
def test_what_is_nested_too_deeply_is_refused_in_one_line(kind: str, levels: int) -> None:
    with pytest.raises(InputError) as caught:
        compile_cuts({"deep": _DEEP[kind](levels)}, SCHEMA)
    assert caught.value.field == "cuts.deep"
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("kind", list(_DEEP))
def test_the_deepest_that_is_taken_works_far_down_the_stack(kind: str) -> None:
    def down(frames: int) -> int:
        if frames:
            return down(frames - 1)
        compiled = compile_cuts({"deep": _DEEP[kind](MAX_DEPTH - 2)}, SCHEMA)
        again = pickle.loads(pickle.dumps(compiled))  # noqa: S301  # as Ray sends it to a task
        return len(again.apply(pa.table({"g": pa.array([5.0], pa.float32())})).kept)

    assert down(200) == 1


def test_threads_of_one_process_do_not_see_each_others_rows() -> None:
    cuts = compile_cuts({"a": "i > 0.5"}, pa.schema([("i", pa.float64())]))

    def kept(rows: int) -> int:
        return len(cuts.apply(pa.table({"i": np.arange(rows) % 2.0})).kept)

    sizes = list(range(2, 4000, 100))
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(kept, sizes)) == [size // 2 for size in sizes]


def test_the_database_reads_no_file_and_cannot_be_reconfigured() -> None:
    with cursor(Limits()) as connection:
        with pytest.raises(duckdb.PermissionException):
            connection.execute("SELECT * FROM read_text('/etc/hostname')")
        with pytest.raises(duckdb.InvalidInputException):
            connection.execute("SET threads = 9")


def test_a_sum_that_overflows_compares_as_its_true_value_would() -> None:
    table = pa.table({"g": [1.7e308, math.pi], "i": [1.7e308, math.pi]})
    cuts = compile_cuts({"a": "g + i > 10"}, table.schema)
    assert cuts.apply(table).kept.tolist() == [0]


def test_as_many_cuts_as_are_allowed_run_and_more_are_refused() -> None:
    schema = pa.schema([("i", pa.float64())])
    many = {f"cut{k}": f"i > {k}" for k in range(200)}
    result = compile_cuts(many, schema).apply(pa.table({"i": [100.0, None, 1000.0]}))
    assert result.kept.tolist() == [2]
    assert result.removed["cut100"] == CutCount(false=1)
    assert result.removed["cut0"] == CutCount(unknown=1)
    with pytest.raises(InputError, match="at most 200"):
        compile_cuts({**many, "one_more": "i > 0"}, schema)


@pytest.mark.parametrize("cut", ["mag < 10", "mag - ref < 10", "mag IS NOT NULL"])
@pytest.mark.parametrize("kind", [pa.decimal128(22, 2), pa.float32()], ids=str)
def test_a_listed_missing_value_is_unknown_in_decimals_too(cut: str, kind: pa.DataType) -> None:
    table = pa.table({"mag": pa.array([-999, 5]).cast(kind), "ref": [3.0, 3.0]})
    result = compile_cuts({"bright": cut}, table.schema).apply(table, (-999.0,))
    assert result.kept.tolist() == [1]
    counted = result.removed["bright"]
    assert (counted.false, counted.unknown) == ((1, 0) if "NULL" in cut else (0, 1))


def test_a_column_that_the_database_has_no_type_for_is_refused_in_one_line() -> None:
    schema = pa.schema([("y", pa.float32()), ("x", pa.decimal256(60, 2))])
    with pytest.raises(InputError, match=r"cuts\.b: .*found x of type decimal256\(60, 2\)") as told:
        compile_cuts({"a": "y > 1", "b": "y > 1 AND x > 1"}, schema)
    assert "\n" not in str(told.value)
    assert compile_cuts({"a": "y > 1"}, schema).names == ("a",)


IN_ZONE = """
import datetime as dt
import pyarrow as pa
from lenspipe.select.cuts import compile_cuts
hours = [dt.datetime(2019, 12, 31, h, tzinfo=dt.UTC) for h in range(0, 24, 6)]
hours += [dt.datetime(2020, 1, 1, h, tzinfo=dt.UTC) for h in range(0, 24, 6)]
table = pa.table({"seen": pa.array(hours, pa.timestamp("us", "UTC")),
                  "said": [f"{h:%Y-%m-%d %H:%M:%S}" for h in hours]})
for cut in ("seen >= '2020-01-01'", "year(seen) = 2020", "day(seen) = 1",
            "CAST(said AS TIMESTAMPTZ) >= CAST('2020-01-01 00:00:00+00' AS TIMESTAMPTZ)"):
    print(compile_cuts({"cut": cut}, table.schema).apply(table).kept.tolist())
"""


@pytest.mark.parametrize("zone", ["UTC", "Asia/Tokyo", "America/Los_Angeles"])
def test_the_time_zone_of_the_host_decides_nothing(zone: str) -> None:
    told = subprocess.run(
        [sys.executable, "-c", IN_ZONE],
        env={**os.environ, "TZ": zone},
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert told.stdout.splitlines() == ["[4, 5, 6, 7]"] * 4
