from __future__ import annotations

import time
from pathlib import Path

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lenspipe.catalogue import sky_functions
from lenspipe.catalogue.candidates import Rule, choose, write_candidates
from lenspipe.catalogue.hats import write_catalogue
from lenspipe.catalogue.query import query, query_limits
from lenspipe.errors import CorruptRunError, HopelessError, InputError
from lenspipe.healpix import healpix_29
from lenspipe.run_directory import RunDirectory
from lenspipe.sky import separation_deg
from tests.catalogue.small_run import cap, commit_scores, failure_table, score_table


def make_run(folder: Path, publish: bool = True) -> RunDirectory:
    run = RunDirectory(str(folder))
    tables = [score_table(*cap(900, 150.0, 2.0, 1.0)), score_table(*cap(100, 1.0, -2.0, 1.0), 900)]
    parts = commit_scores(run, tables, [failure_table([9001], ["not_found"])])
    if publish:
        write_catalogue(run, parts, "toy", 300)
        chosen = choose(run, parts, Rule(top=12))
        assert chosen is not None
        write_candidates(run, chosen, [], [], {})
    return run


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> RunDirectory:
    return make_run(tmp_path_factory.mktemp("run"))


def test_rows_are_those_of_the_scores(run: RunDirectory) -> None:
    scored = run.read_folder("scores", ("score",))
    assert scored is not None
    found = query(run, "SELECT * FROM scores ORDER BY object_id")
    assert found.equals(scored.sort_by("object_id"))
    best = query(run, "SELECT object_id FROM scores ORDER BY score DESC LIMIT 3")
    order = pc.sort_indices(scored["score"], sort_keys=[("", "descending")])[:3]
    assert best["object_id"].to_pylist() == scored["object_id"].take(order).to_pylist()


def test_a_member_that_was_not_asked_has_null_there(tmp_path: Path) -> None:
    run = RunDirectory(str(tmp_path))
    table = score_table(*cap(50, 150.0, 2.0, 1.0))
    asked = np.arange(50) % 5 == 0
    logits = np.where(asked, table["score_vit_b"].to_numpy(), np.nan).astype(np.float32)
    at = table.schema.get_field_index("score_vit_b")
    table = table.set_column(at, table.schema.field(at), pa.array(logits))
    write_catalogue(run, commit_scores(run, [table]), "toy", 20)
    told = query(
        run,
        "SELECT count(score_vit_b), count(*) FILTER (score_vit_b IS NULL), max(score_vit_b), "
        "avg(score_vit_b), count(*) FILTER (score_vit_b > -1e9) FROM scores",
    )
    *_, highest, mean, above = values = [told[k][0].as_py() for k in range(5)]
    assert (values[0], values[1], above) == (10, 40, 10)
    assert highest == logits[asked].max()
    assert mean == pytest.approx(logits[asked].mean(dtype=float))
    best = query(run, "SELECT object_id FROM scores ORDER BY score_vit_b DESC NULLS LAST LIMIT 1")
    assert best[0][0].as_py() == int(np.nanargmax(logits))
    kind = query(run, "SELECT score_vit_b FROM scores LIMIT 1").schema.field(0)
    assert kind == table.schema.field(at)


def test_tables_can_be_joined(run: RunDirectory) -> None:
    found = query(
        run,
        "SELECT c.rank, s.score_vit_b FROM candidates c JOIN scores s USING (object_id) ORDER BY 1",
    )
    assert found["rank"].to_pylist() == list(range(1, 13))
    assert query(run, "SELECT count(*) FROM failures WHERE reason = 'not_found'")[0][0].as_py() == 1


def test_columns_keep_their_meaning(run: RunDirectory) -> None:
    found = query(run, "SELECT ra, ra + 1 AS more, rank FROM candidates, range(1)")
    assert found.schema.field("ra").metadata[b"unit"] == b"deg"
    assert found.schema.field("more").metadata is None
    assert b"place by score" in found.schema.field("rank").metadata[b"description"]


def test_a_run_that_is_not_published_has_its_scores(tmp_path: Path) -> None:
    run = make_run(tmp_path, publish=False)
    assert query(run, "SELECT count(*) FROM scores")[0][0].as_py() == 1000
    with pytest.raises(
        InputError, match=r"expected tables scores, failures, sources .*has no candidates"
    ):
        query(run, "SELECT * FROM candidates")


def test_cones_and_pixels_in_sql(run: RunDirectory) -> None:
    found = query(
        run,
        "SELECT object_id, separation_arcsec(ra, dec, 150, 2) AS far FROM scores "
        "WHERE in_cone(ra, dec, 150, 2, 0.2) ORDER BY far",
    )
    rows = query(run, "SELECT object_id, ra, dec, healpix_29 FROM scores")
    far = separation_deg(150.0, 2.0, rows["ra"].to_numpy(), rows["dec"].to_numpy())
    assert found.num_rows == np.count_nonzero(far <= 0.2) > 5
    np.testing.assert_allclose(found["far"].to_numpy(), np.sort(far[far <= 0.2]) * 3600, atol=1e-6)
    pixels = query(
        run,
        "SELECT count(*) FROM scores WHERE healpix(ra, dec, 12) != healpix_parent(healpix_29, 12)"
        " OR healpix(ra, dec, 29) != healpix_29",
    )
    assert pixels[0][0].as_py() == 0


ANGLES = st.tuples(st.floats(0, 360), st.floats(-90, 90))


@settings(max_examples=60, deadline=None)
@given(first=ANGLES, second=ANGLES, order=st.integers(0, 29))
def test_functions_are_those_of_python(
    first: tuple[float, float], second: tuple[float, float], order: int
) -> None:
    connection = duckdb.connect()
    sky_functions.create(connection)
    [[far, pixel]] = connection.execute(
        "SELECT separation_deg($1, $2, $3, $4), healpix($1, $2, $5)", [*first, *second, order]
    ).fetchall()
    expected = separation_deg(*first, np.array([second[0]]), np.array([second[1]]))[0]
    assert far == pytest.approx(expected, abs=1e-10)
    assert pixel == int(healpix_29(np.array([first[0]]), np.array([first[1]]))[0]) >> 2 * (
        29 - order
    )


def test_the_pixel_of_no_position_is_null() -> None:
    connection = duckdb.connect()
    sky_functions.create(connection)
    places = "(1, 91, 3), (NULL, 0, 3), (0, 0, 30), (1, 1, 3)"
    text = f"SELECT healpix(a, b, c) FROM (VALUES {places}) t(a, b, c)"
    found = [row[0] for row in connection.execute(text).fetchall()]
    assert found[:3] == [None, None, None]
    assert found[3] is not None


FILES = [
    "SELECT * FROM read_text('{file}')",
    "SELECT * FROM read_parquet('{part}')",
    "SELECT * FROM '{part}'",
    "FROM '{file}'",
    "SELECT * FROM glob('/*')",
    "SELECT * FROM read_csv('{file}')",
    "SELECT * FROM sniff_csv('{file}')",
    "SELECT (SELECT content FROM read_text('{file}'))",
    "SELECT * FROM scores WHERE EXISTS (FROM read_text('{file}'))",
    "WITH a AS (FROM read_blob('{file}')) SELECT * FROM a",
    "SELECT * FROM query('FROM read_text(''{file}'')')",
    "SELECT * FROM query_table('{part}')",
    "SELECT * FROM read_parquet('https://example.org/a.parquet')",
    "SELECT * FROM 's3://bucket/a.parquet'",
    "SELECT * FROM arrow_scan(1, 2, 3)",
    "SELECT * FROM arrow_scan(1::POINTER, 2::POINTER, 3::POINTER)",
    "SELECT * FROM pandas_scan(1)",
    "SELECT * FROM duckdb_settings()",
    "SELECT * FROM duckdb_secrets()",
    "SELECT * FROM which_secret('{file}', 's3')",
    "SELECT getenv('HOME')",
]


@pytest.mark.parametrize("text", FILES)
def test_nothing_but_the_tables_is_read(run: RunDirectory, text: str, tmp_path: Path) -> None:
    file = tmp_path / "secret.txt"
    file.write_text("planted")
    part = run.store.local_path(run.part_names("scores", run.commits("score"))[0])
    with pytest.raises(InputError, match=r"^query: expected") as raised:
        query(run, text.format(file=file, part=part))
    assert "planted" not in str(raised.value)


STATEMENTS = [
    "COPY scores TO '{file}'",
    "CREATE TABLE a AS SELECT 1",
    "ATTACH '{file}'",
    "INSTALL httpfs",
    "LOAD httpfs",
    "SET threads = 9",
    "SET enable_external_access = true",
    "PRAGMA database_list",
    "SELECT 1; SELECT 2",
    "SELECT 1; COPY scores TO '{file}'",
    "DROP VIEW scores",
    "INSERT INTO scores VALUES (1)",
    "EXPORT DATABASE '{file}'",
    "EXPLAIN ANALYZE SELECT 1",
    "",
    "-- nothing",
    "hello",
    "SELECT FROM WHERE",
    "SELECT '" + "x" * 100_001 + "'",
    "SELECT \x00",
]


@pytest.mark.parametrize("text", STATEMENTS, ids=lambda text: text[:30])
def test_only_one_select_is_taken(run: RunDirectory, text: str, tmp_path: Path) -> None:
    file = tmp_path / "out"
    with pytest.raises(InputError, match=r"^query: expected"):
        query(run, text.format(file=file))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "text",
    [
        "SELECT nothing FROM scores",
        "SELECT * FROM galaxies",
        "SELECT sum(model_hash) FROM scores",
        "SELECT 1 / ra::BLOB FROM scores",
        "SELECT error('no')",
    ],
)
def test_what_does_not_fit_is_one_line(run: RunDirectory, text: str) -> None:
    with pytest.raises(InputError, match=r"^query: expected") as raised:
        query(run, text)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    "text",
    [
        "SELECT count(*) FROM range(100000000000) a(x), range(1000) b(y) WHERE x + y = -1",
        "WITH RECURSIVE a AS (SELECT 1 AS x UNION ALL SELECT x + 1 FROM a) SELECT max(x) FROM a",
    ],
)
def test_a_query_that_never_ends_is_ended(run: RunDirectory, text: str) -> None:
    begun = time.monotonic()
    with pytest.raises(HopelessError, match=r"^query: expected no more than --timeout-s = 0.5 s"):
        query(run, text, query_limits(seconds=0.5))
    assert time.monotonic() - begun < 20


def test_a_query_that_wants_too_much_memory_is_ended(run: RunDirectory) -> None:
    text = "SELECT list(x) FROM range(2000000000) t(x) GROUP BY x % 100000"
    with pytest.raises(HopelessError, match=r"^query: expected no more than --memory-mb = 200"):
        query(run, text, query_limits(seconds=60, memory_mb=200))


def test_a_lost_file_of_the_run_is_told(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    next(run.store.local_path("catalogue").rglob("Npix=*.parquet")).unlink()
    with pytest.raises(CorruptRunError, match=r"Npix=.*lenspipe verify"):
        query(run, "SELECT sum(score) FROM scores")


def test_several_threads_may_ask(run: RunDirectory) -> None:
    from concurrent.futures import ThreadPoolExecutor

    def ask(k: int) -> int:
        text = f"SELECT count(*) FROM scores WHERE object_id % 4 = {k % 4}"
        found: pa.Table = query(run, text)
        return int(found[0][0].as_py())

    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(ask, range(8))) == [250] * 8
