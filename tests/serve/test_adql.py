from __future__ import annotations

from contextlib import closing

import duckdb
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lenspipe.catalogue import sky_functions
from lenspipe.catalogue.cone import Cone
from lenspipe.errors import InputError
from lenspipe.healpix import healpix_29
from lenspipe.serve.adql import to_duckdb
from lenspipe.sky import separation_deg

SOURCES = 4000


@pytest.fixture(scope="module")
def sky() -> duckdb.DuckDBPyConnection:
    """A table `scores` of positions over the whole sky and at its seams."""
    rng = np.random.default_rng(7)
    ra = np.r_[rng.uniform(0, 360, SOURCES), rng.normal(0, 0.3, SOURCES) % 360]
    dec = np.degrees(np.arcsin(rng.uniform(-1, 1, 2 * SOURCES)))
    dec[SOURCES:] = rng.normal(0, 0.3, SOURCES)
    connection = duckdb.connect()
    sky_functions.create(connection)
    connection.execute(
        "CREATE TABLE scores (object_id BIGINT, ra DOUBLE, dec DOUBLE, healpix_29 BIGINT)"
    )
    rows = {"object_id": np.arange(2 * SOURCES), "ra": ra, "dec": dec}
    rows["healpix_29"] = healpix_29(ra, dec)
    connection.register("given", rows)
    connection.execute("INSERT INTO scores SELECT * FROM given")
    return connection


def ask(connection: duckdb.DuckDBPyConnection, text: str) -> list[tuple[object, ...]]:
    with closing(connection.cursor()) as cursor:
        found: list[tuple[object, ...]] = cursor.execute(
            to_duckdb(text, frozenset({"scores"}))
        ).fetchall()
    return found


@settings(max_examples=60, deadline=None)
@given(
    ra=st.one_of(st.floats(0, 360), st.floats(-0.5, 0.5).map(lambda x: x % 360)),
    dec=st.one_of(st.floats(-90, 90), st.floats(-0.5, 0.5)),
    radius=st.floats(-3.0, 1.7).map(lambda power: 10.0**power),
)
def test_a_cone_holds_what_is_within_it(
    sky: duckdb.DuckDBPyConnection, ra: float, dec: float, radius: float
) -> None:
    found = ask(
        sky,
        "SELECT object_id FROM scores WHERE 1 = CONTAINS(POINT('ICRS', ra, dec),"
        f" CIRCLE('ICRS', {ra!r}, {dec!r}, {radius!r}))",
    )
    rows = sky.execute("SELECT object_id, ra, dec FROM scores").fetchnumpy()
    away = separation_deg(ra, dec, rows["ra"], rows["dec"])
    sure = {int(i) for i in rows["object_id"][away < radius - 1e-9]}
    perhaps = {int(i) for i in rows["object_id"][away < radius + 1e-9]}
    got = {row[0] for row in found}
    assert sure <= got <= perhaps


def test_a_constant_cone_is_looked_for_in_few_ranges_of_pixels() -> None:
    text = to_duckdb(
        "SELECT 1 FROM scores AS s WHERE CONTAINS(POINT(s.ra, s.dec), CIRCLE(1, 2, 0.5)) = 1",
        frozenset({"scores"}),
    )
    assert 1 < text.count('"s"."healpix_29" BETWEEN') <= 13
    pixels = Cone(1.0, 2.0, 0.5).ranges()
    assert f"BETWEEN {pixels[0, 0]} AND" in text
    # Not where the columns may be of another table, or the cone moves.
    for other in (
        "SELECT 1 FROM candidates WHERE 1 = CONTAINS(POINT(ra, dec), CIRCLE(1, 2, 0.5))",
        "SELECT 1 FROM scores, failures WHERE 1 = CONTAINS(POINT(ra, dec), CIRCLE(1, 2, 0.5))",
        "SELECT 1 FROM scores WHERE 1 = CONTAINS(POINT(ra, dec), CIRCLE(ra, 2, 0.5))",
        "SELECT 1 FROM scores WHERE 1 = CONTAINS(POINT(dec, ra), CIRCLE(1, 2, 0.5))",
        "SELECT 1 FROM scores AS s(a, ra, dec) WHERE 1 = CONTAINS(POINT(ra, dec), CIRCLE(1, 2, 3))",
        "SELECT 1 = CONTAINS(POINT(ra, dec), CIRCLE(1, 2, 0.5)) FROM scores",
        "SELECT 1 FROM tap_schema.scores WHERE 1 = CONTAINS(POINT(ra, dec), CIRCLE(1, 2, 0.5))",
    ):
        assert "healpix_29" not in to_duckdb(other, frozenset({"scores"}))


@pytest.mark.parametrize(
    ("query", "same"),
    [
        (
            "SELECT COUNT(*) FROM scores AS c WHERE object_id < 900 AND EXISTS (SELECT 1"
            " FROM scores WHERE object_id > 7900 AND {cone})",
            "SELECT COUNT(*) FROM scores AS c WHERE object_id < 900 AND {cone}",
        ),
        (
            "WITH scores AS (SELECT ra + 10 AS ra, dec, healpix_29 FROM run.scores)"
            " SELECT COUNT(*) FROM scores AS c WHERE {cone}",
            "SELECT COUNT(*) FROM (SELECT ra + 10 AS ra, dec FROM scores) AS c WHERE {cone}",
        ),
        (
            "SELECT COUNT(*) FROM scores AS d WHERE EXISTS (SELECT 1 FROM scores AS c"
            " WHERE {cone} AND c.object_id = d.object_id)",
            "SELECT COUNT(*) FROM scores AS c WHERE {cone}",
        ),
    ],
)
def test_ranges_of_pixels_are_of_the_table_that_the_point_is_of(
    sky: duckdb.DuckDBPyConnection, query: str, same: str
) -> None:
    contains = "CONTAINS(POINT(c.ra, c.dec), CIRCLE(180, 0, 20))"
    [[found]] = ask(sky, query.format(cone=f"1 = {contains}"))
    [[expected]] = ask(sky, same.format(cone=f"{contains} <> 0"))
    assert found == expected != 0


@pytest.mark.parametrize(
    ("adql", "expected"),
    [
        ("DISTANCE(POINT('ICRS', 0, 0), POINT('ICRS', 3, 0))", 3.0),
        ("DISTANCE(10, 80, 190, 80)", 20.0),
        ("COORD1(POINT('', 12.5, 3)) + COORD2(POINT(1, 2))", 14.5),
        ("CONTAINS(POINT(1, 1), CIRCLE(POINT(1, 1), 0.5))", 1),
        ("CONTAINS(POINT(1, 1), CIRCLE(5, 1, 0.5))", 0),
        ("LOG(EXP(2.0))", 2.0),
        ("LOG10(1000)", 3.0),
        ("TRUNCATE(-12.3456, 2)", -12.34),
        ("TRUNCATE(12.9)", 12.0),
        ("TRUNCATE(LOG(100.0), 2)", 4.6),
        ("TRUNCATE(TRUNCATE(1.567, 2), 1)", 1.5),
        ("TRUNCATE(RAND() / 2)", 0.0),
        ("100 / TRUNCATE(4.25, 1)", 100 / 4.2),
        ("TRUNCATE(DISTANCE(POINT(1, 2), POINT(1, 3.55)), 1)", 1.5),
        ("DISTANCE(POINT(1, 2), POINT(1, DISTANCE(1, 2, 1, 3)))", 1.0),
        ("COORD1(POINT(COORD2(POINT(1, 2 + 1)), 3)) * 2", 6),
        ("CONTAINS(POINT(1, 2), CIRCLE(1, 2 + CONTAINS(POINT(1, 2), CIRCLE(1, 2, 1)), 0.5))", 0),
        ("CEILING(1.2) + FLOOR(1.8) + MOD(7, 4)", 6.0),
        ("ROUND(PI(), 3)", 3.142),
        ("COALESCE(NULL, 5)", 5),
        ("CASE WHEN 2 > 1 THEN 'a' ELSE 'b' END", "a"),
        ("'x' || UPPER('y')", "xY"),
        ("CAST('12' AS INTEGER) * 2", 24),
        ("CAST(12.5 AS CHAR(2)) || CAST('abc' AS VARCHAR(1)) || CAST('xy' AS CHAR)", "12axy"),
        ("POWER(2, 3) - SQRT(16) * ABS(-1)", 4.0),
    ],
)
def test_expressions_mean_what_adql_says(
    sky: duckdb.DuckDBPyConnection, adql: str, expected: object
) -> None:
    [[value]] = ask(sky, f"SELECT TOP 1 {adql} AS v FROM scores")
    assert value == (pytest.approx(expected) if isinstance(expected, float) else expected)


def test_top_order_and_sets(sky: duckdb.DuckDBPyConnection) -> None:
    best = ask(sky, "SELECT TOP 3 object_id FROM scores ORDER BY object_id DESC")
    assert best == [(2 * SOURCES - 1 - k,) for k in range(3)]
    counted = ask(
        sky,
        "SELECT COUNT(*) AS n, MIN(object_id) FROM (SELECT TOP 10 object_id FROM scores"
        " ORDER BY object_id) AS few WHERE object_id BETWEEN 2 AND 20 GROUP BY 1 = 1",
    )
    assert counted == [(8, 2)]
    whole = ask(sky, "SELECT TOP 1 run.scores.object_id FROM run.scores ORDER BY run.scores.ra")
    assert whole == ask(sky, "SELECT TOP 1 object_id FROM scores ORDER BY ra")
    joined = ask(
        sky,
        "WITH few AS (SELECT object_id FROM scores WHERE object_id < 3) SELECT a.object_id"
        " FROM few AS a LEFT OUTER JOIN scores AS b USING (object_id) WHERE b.ra IS NOT NULL"
        " UNION SELECT object_id FROM scores WHERE object_id IN (1, 7) ORDER BY object_id",
    )
    assert joined == [(0,), (1,), (2,), (7,)]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "SELECT 1; SELECT 2",
        "SELECT 1; DROP TABLE scores",
        "DROP TABLE scores",
        "INSERT INTO scores VALUES (1)",
        "UPDATE scores SET ra = 0",
        "COPY scores TO '/tmp/x'",
        "ATTACH '/etc/passwd'",
        "PRAGMA database_list",
        "SET memory_limit = '1GB'",
        "CALL pragma_version()",
        "CREATE TABLE a AS SELECT 1",
        "EXPLAIN SELECT 1",
        "SELECT * FROM read_csv('/etc/passwd')",
        "SELECT * FROM read_text('/etc/passwd')",
        "SELECT * FROM glob('*')",
        "SELECT * FROM duckdb_settings()",
        "SELECT getenv('HOME')",
        "SELECT current_setting('memory_limit')",
        "SELECT query('SELECT 1')",
        "SELECT pg_read_file('x')",
        "SELECT repeat('x', 1000000000)",
        "SELECT * FROM information_schema.tables",
        "SELECT * FROM other.main.scores",
        "SELECT other.scores.ra FROM scores",
        "SELECT other.run.scores.ra FROM scores",
        "SELECT * FROM scores TABLESAMPLE 10 PERCENT",
        "SELECT [1, 2, 3] FROM scores",
        "SELECT {'a': 1} FROM scores",
        "SELECT * FROM scores, UNNEST([1])",
        "SELECT x -> x + 1 FROM scores",
        "SELECT CAST(ra AS BLOB) FROM scores",
        "SELECT CAST(ra AS CHAR(2, 3)) FROM scores",
        "SELECT CAST(ra AS CHAR('2')) FROM scores",
        "SELECT POINT(1, 2) FROM scores",
        "SELECT CONTAINS(POINT(1, 2), BOX(1, 2, 3, 4)) FROM scores",
        "SELECT CONTAINS(POINT('GALACTIC', 1, 2), CIRCLE(1, 2, 3)) FROM scores",
        "SELECT CONTAINS(POINT(1), CIRCLE(1, 2, 3)) FROM scores",
        "SELECT DISTANCE(1, 2, 3) FROM scores",
        "SELECT TRUNCATE() FROM scores",
        "SELECT TRUNCATE(ra, TRUNCATE(dec, 1)) FROM scores",
        "SELECT 1 FROM scores WHERE 1 = CONTAINS(POINT(ra, dec), CIRCLE(1, 95, 3))",
        "SELECT " + "(" * 5000 + "1" + ")" * 5000,
        "SELECT ra FROM " + "(SELECT ra FROM " * 100 + "scores" + ") AS x" * 100,
        "SELECT '" + "x" * 20_000 + "'",
        "SELECT " + "1+" * 4000 + "1",
    ],
    ids=lambda text: text[:40],
)
def test_what_is_not_the_core_of_adql_is_refused_in_one_line(text: str) -> None:
    with pytest.raises(InputError) as refused:
        to_duckdb(text, frozenset({"scores"}))
    assert "\n" not in str(refused.value)
    assert str(refused.value).startswith("QUERY: expected ")


@pytest.mark.parametrize("name", ["current_user", '"Session_User"', "current_date"])
def test_no_name_is_a_function_of_duckdb(sky: duckdb.DuckDBPyConnection, name: str) -> None:
    with pytest.raises(InputError, match="columns"):
        ask(sky, f"SELECT {name} FROM scores")
    with pytest.raises(duckdb.BinderException):
        ask(sky, f"SELECT scores.{name} FROM scores")
    assert ask(sky, f"SELECT TOP 1 'x' AS {name} FROM scores") == [("x",)]


@settings(max_examples=150, deadline=None)
@given(text=st.text(alphabet="SELECTFROMscores 'ra\"*(),;-/=1<>|[]{}$:.%\n", max_size=60))
def test_any_text_is_translated_or_refused(text: str) -> None:
    try:
        assert to_duckdb(text)
    except InputError as error:
        assert error.field == "QUERY"
