from __future__ import annotations

import csv
import hashlib
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jaxtyping import Float64

from lenspipe.catalogue.candidates import Rule, choose, write_candidates
from lenspipe.catalogue.export import export
from lenspipe.catalogue.hats import write_catalogue
from lenspipe.catalogue.known import (
    FATES,
    Known,
    KnownAt,
    KnownList,
    known_schema,
    read_known,
    read_list,
    write_known,
)
from lenspipe.catalogue.known_fates import ROWS_PER_CELL, _coarsened, _ranks, follow
from lenspipe.catalogue.query import query
from lenspipe.catalogue.tables import open_table
from lenspipe.config import KnownLenses
from lenspipe.errors import CorruptRunError, InputError
from lenspipe.pages.known import known_section
from lenspipe.run.verify_products import check_known
from lenspipe.run_directory import KNOWN, RunDirectory
from lenspipe.select.lookup import Removed
from tests.catalogue.small_run import cap, commit_scores, failure_table, score_table

RULE = Rule(top=12)
HEADING = "name,RA [deg],DEC [deg],zlens,type,grading,ref\n"


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> RunDirectory:
    """300 scored sources within 0.3° of (150, 2), the best twelve being candidates, and a failure
    at (10, 0)."""
    run = RunDirectory(str(tmp_path_factory.mktemp("known") / "run"))
    table = score_table(*cap(300, 150.0, 2.0, 0.3))
    parts = commit_scores(run, [table], [failure_table([9001], ["bad_pixels"])])
    write_catalogue(run, parts, "toy", 100)
    chosen = choose(run, parts, RULE)
    assert chosen is not None
    write_candidates(run, chosen, [], [], {})
    return run


def ranked(run: RunDirectory) -> list[dict[str, Any]]:
    """All scored rows, the best first."""
    scored = run.read_folder("scores", ("score",))
    assert scored is not None
    rows: list[dict[str, Any]] = scored.sort_by([("score", "descending")]).to_pylist()
    return rows


def listed(rows: list[tuple[str, float, float]], radius_arcsec: float = 2.0) -> KnownList:
    schema = pa.schema([known_schema(pa.int64()).field(k) for k in range(6)])
    names, ra, dec = ([row[k] for row in rows] for k in range(3))
    n = len(rows)
    columns = [names, ra, dec, ["galaxy"] * n, ["confident"] * n, [f"ref of {x}" for x in names]]
    arrays = [pa.array(v, field.type) for v, field in zip(columns, schema, strict=True)]
    digest = hashlib.sha256(repr(rows).encode()).hexdigest()
    return KnownList(pa.table(arrays, schema=schema), radius_arcsec, digest)


def the_catalogue(
    ra: Float64[np.ndarray, " n"], dec: Float64[np.ndarray, " n"], radius_arcsec: float
) -> list[Removed | None]:
    """A catalogue in which every second position has a source that was cut."""
    assert radius_arcsec == 2.0
    cut = Removed(7777, 0.5, "cut", "red")
    return [cut if k % 2 == 0 else None for k in range(len(ra))]


def known_of(run: RunDirectory, rule: Rule = RULE) -> Known:
    rows = ranked(run)
    lenses = [
        ("best", rows[0]["ra"], rows[0]["dec"] + 1.0 / 3600),
        ("last", rows[-1]["ra"], rows[-1]["dec"]),
        ("dark", 10.0, 0.0),
        ("red", 150.05, 2.05),
        ("none", 150.06, 2.06),
        ("elsewhere", 300.0, -40.0),
    ]
    return follow(run, listed(lenses), rule, "identity", the_catalogue)


def test_every_lens_has_the_fate_of_its_source(run: RunDirectory) -> None:
    known = known_of(run)
    table = known.table
    assert table["name"].to_pylist() == ["best", "last", "dark", "red", "none"]
    assert table["fate"].to_pylist() == [
        "candidate", "below_threshold", "failed", "cut", "not_in_catalogue",
    ]  # fmt: skip
    assert set(table["fate"].to_pylist()) <= set(FATES)
    assert table["reason"].to_pylist() == [None, None, "bad_pixels", "red", None]
    rows = ranked(run)
    assert table["rank"].to_pylist() == [1, 300, None, None, None]
    assert table["object_id"].to_pylist()[:3] == [rows[0]["object_id"], rows[-1]["object_id"], 9001]
    assert table["score"].to_pylist()[:2] == [rows[0]["score"], rows[-1]["score"]]
    assert table["separation_arcsec"][0].as_py() == pytest.approx(1.0, abs=1e-6)
    assert (known.listed, known.in_footprint, known.scored, known.recovered) == (6, 5, 2, 1)
    assert all(field.metadata[b"description"] for field in table.schema)


def test_of_several_sources_the_best_scored_counts(run: RunDirectory) -> None:
    rows = ranked(run)
    wide = listed([("wide", rows[-1]["ra"], rows[-1]["dec"])], radius_arcsec=3600.0)
    table = follow(run, wide, RULE, "").table
    near = [
        row
        for row in rows
        if np.hypot(row["ra"] - rows[-1]["ra"], row["dec"] - rows[-1]["dec"]) < 0.9
    ]
    assert table["object_id"].to_pylist() == [near[0]["object_id"]]


@pytest.mark.parametrize("keep", [12, 5])
def test_a_rule_by_number_and_one_by_score_agree(run: RunDirectory, keep: int) -> None:
    rows = ranked(run)
    above = (rows[11]["score"] + rows[12]["score"]) / 2
    lenses = listed([(str(k), row["ra"], row["dec"]) for k, row in enumerate(rows[:20])])
    fates = [
        follow(run, lenses, rule, "").table["fate"].to_pylist()
        for rule in (Rule(top=12, keep=keep), Rule(score_above=above))
    ]
    assert fates[0] == fates[1] == ["candidate"] * 12 + ["below_threshold"] * 8


def test_nobody_knows_where_the_catalogue_cannot_be_asked(run: RunDirectory) -> None:
    known = follow(run, listed([("red", 150.05, 2.05)]), RULE, "")
    assert known.table["fate"].to_pylist() == ["not_selected"]
    lost = Removed(None, None, "not_selected", "a.parquet: gone")
    known = follow(run, listed([("red", 150.05, 2.05)]), RULE, "", lambda *_: [lost])
    assert known.table["reason"].to_pylist() == ["a.parquet: gone"]


def test_a_run_without_rows_and_a_list_without_lenses(run: RunDirectory, tmp_path: Path) -> None:
    empty = follow(RunDirectory(str(tmp_path)), listed([("a", 1.0, 1.0)]), RULE, "")
    assert (empty.in_footprint, empty.listed) == (0, 1)
    none = follow(run, listed([]), RULE, "", the_catalogue)
    assert (none.in_footprint, none.scored, none.recovered) == (0, 0, 0)
    assert known_section(none).of_scored.trials == 0


@settings(deadline=None)
@given(st.lists(st.integers(0, 12 * 4**10 - 1), min_size=1, max_size=60), st.integers(1, 40))
def test_the_footprint_holds_every_source_in_cells_that_are_full_enough(
    cells: list[int], rows: int
) -> None:
    pixels = np.unique(np.array(cells, np.int64))
    counts = np.full(len(pixels), rows)
    order, found = _coarsened(pixels, counts)
    assert np.isin(pixels >> 2 * (10 - order), found).all()
    assert order == 0 or len(found) * ROWS_PER_CELL <= counts.sum()


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(-3, 3), min_size=1, max_size=30))
def test_ranks_are_counted_from_the_best(scores: list[int]) -> None:
    class OneFile:
        """Enough of a run for `stream` to be replaced."""

    values = np.array(scores, np.float32)
    expected = [1 + int((values > value).sum()) for value in values]
    with pytest.MonkeyPatch.context() as patch:
        tables = [pa.table({"score": part}) for part in np.array_split(values, 2) if len(part)]
        patch.setattr("lenspipe.catalogue.known_fates.stream", lambda *_: iter(tables))
        found = _ranks(OneFile(), [], values)  # type: ignore[arg-type]  # never looked into
    assert found.tolist() == expected


# The file, and what is made of it


@pytest.fixture
def kept(run: RunDirectory) -> RunDirectory:
    write_known(run, known_of(run))
    return run


def test_it_is_read_as_it_was_written(kept: RunDirectory) -> None:
    known, again = known_of(kept), read_known(kept)
    assert again is not None
    assert again.table.equals(known.table)
    assert again.table.schema.field("ra").metadata[b"unit"] == b"deg"
    assert (again.order, again.radius_arcsec, again.identity) == (known.order, 2.0, "identity")


@pytest.mark.parametrize(
    "damage", [lambda d: d[:50], lambda _: b"", lambda d: d[:40] + bytes(200) + d[240:]]
)
def test_a_damaged_file_is_told(
    kept: RunDirectory, damage: Callable[[bytes], bytes], tmp_path: Path
) -> None:
    other = RunDirectory(str(tmp_path))
    assert read_known(other) is None
    other.store.write(KNOWN, damage(kept.store.read(KNOWN)))
    with pytest.raises(CorruptRunError, match=r"^known_lenses.parquet: damaged: .* makes it anew$"):
        read_known(other)


def test_candidates_and_exports_name_the_lens(kept: RunDirectory, tmp_path: Path) -> None:
    table = open_table(kept, "candidates")
    assert isinstance(table, pa.Table)
    assert table["known_lens"].to_pylist() == ["best"] + [None] * 11
    export(kept, str(tmp_path / "a.parquet"))
    assert pq.read_table(tmp_path / "a.parquet")["references"].to_pylist()[:2] == [
        "ref of best",
        None,
    ]
    assert export(kept, str(tmp_path / "k.vot"), "known_lenses") == 5
    assert export(kept, str(tmp_path / "k.fits"), "known_lenses") == 5


def test_the_table_can_be_asked(kept: RunDirectory) -> None:
    found = query(kept, "SELECT fate, count(*) n FROM known_lenses GROUP BY 1 ORDER BY 1")
    assert found["fate"].to_pylist() == sorted(FATES.keys() - {"rejected", "not_selected"})
    joined = query(
        kept,
        "SELECT k.name, s.score FROM known_lenses k JOIN scores s USING (object_id) ORDER BY 2",
    )
    assert joined["name"].to_pylist() == ["last", "best"]


def test_verify_holds_it_against_the_scores(kept: RunDirectory, tmp_path: Path) -> None:
    parts = kept.part_names("scores", kept.commits("score"))
    assert list(check_known(kept, parts, expected=True)) == []
    assert "there, but the survey file" in next(check_known(kept, parts, expected=False))
    known = known_of(kept)
    k = known.table.schema.get_field_index("score")
    other = known.table.set_column(
        k, known.table.schema.field(k), pa.array([9.0, 8.0, None, None, None], pa.float32())
    )
    write_known(kept, Known(other, 2.0, 6, known.order, "", ""))
    assert len(list(check_known(kept, parts, expected=True))) == 2
    kept.store.delete(KNOWN)
    assert list(check_known(kept, parts, expected=True)) == ["known_lenses.parquet: not there"]


def test_the_report_counts_them(run: RunDirectory) -> None:
    section = known_section(known_of(run))
    assert (section.of_scored.hits, section.of_scored.trials) == (1, 2)
    assert (section.of_footprint.hits, section.of_footprint.trials) == (1, 5)
    assert 0 < section.of_footprint.low < 0.2 < section.of_footprint.high < 1
    assert [lens.name for lens in section.missed] == ["last", "dark", "red", "none"]
    assert section.missed[1].why == "failed: bad pixels"
    assert dict(section.losses)["cut"] == 1


# Names at positions


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.tuples(st.floats(0, 360), st.floats(-90, 90)), max_size=6),
    st.lists(st.tuples(st.floats(0, 360), st.floats(-90, 90)), max_size=6),
    st.floats(1.0, 30.0),
)
def test_names_are_those_of_the_lenses_within_the_radius(
    places: list[tuple[float, float]], lenses: list[tuple[float, float]], radius_deg: float
) -> None:
    from lenspipe.sky import separation_deg

    known = listed([(str(k), *place) for k, place in enumerate(lenses)])
    ra, dec = (np.array([place[k] for place in places]) for k in range(2))
    found = KnownAt(known.table, radius_deg * 3600).names(ra, dec)
    for name, place in zip(found, places, strict=True):
        far = {
            str(k): float(separation_deg(*place, np.array([lens[0]]), np.array([lens[1]]))[0])
            for k, lens in enumerate(lenses)
        }
        near = {name for name, apart in far.items() if apart <= radius_deg}
        names = [] if name is None else name.split("; ")
        assert set(names) == near
        assert [far[x] for x in names] == sorted(far[x] for x in names)


# Lists


def options(path: Path | str, **more: Any) -> KnownLenses:
    return KnownLenses.model_validate({"path": str(path), **more})


def test_a_list_like_lenscat_is_read(tmp_path: Path) -> None:
    path = tmp_path / "lenscat.csv"
    path.write_text(HEADING + "J1,10.5,-3.25,0.4,galaxy,confident,doi\n,11,4,-,cluster,,\n,,,,,,\n")
    known = read_list(options("lenscat.csv", radius_arcsec=3.0), str(tmp_path))
    assert known.radius_arcsec == 3.0
    assert known.table.to_pylist() == [
        {"name": "J1", "ra": 10.5, "dec": -3.25, "type": "galaxy", "grade": "confident",
         "reference": "doi"},
        {"name": "11.00000 +4.00000", "ra": 11.0, "dec": 4.0, "type": "cluster", "grade": None,
         "reference": None},
    ]  # fmt: skip
    moved = tmp_path / "moved.csv"
    moved.write_text(path.read_text())
    assert read_list(options(moved), ".").sha256 == known.sha256
    moved.write_text(path.read_text().replace("J1", "J2"))
    assert read_list(options(moved), ".").sha256 != known.sha256


def test_columns_of_a_list_can_be_named(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("which,x,y\nA,1,2\n")
    known = read_list(options(path, ra="x", dec="y", name="which"), ".")
    assert known.table["name"].to_pylist() == ["A"]
    for key in ("ra", "dec", "name"):
        asked = {"ra": "x", "dec": "y", "name": "which", key: "none"}
        with pytest.raises(InputError, match=rf"^known_lenses.{key}: expected one of which, x, y"):
            read_list(options(path, **asked), ".")
    with pytest.raises(InputError, match=r"^known_lenses.path: expected a VOTable.*none.csv"):
        read_list(options(tmp_path / "none.csv"), ".")


def test_the_package_is_found_by_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lenspipe.catalogue.outside.find_spec", lambda _: None)
    with pytest.raises(InputError, match=r"^known_lenses.path: expected the package lenscat"):
        read_list(options("lenscat"), str(tmp_path))
    data = tmp_path / "package" / "lenscat" / "data"
    data.mkdir(parents=True)
    (data.parent / "__init__.py").write_text("raise RuntimeError('is not imported')")
    (data / "catalog.csv").write_text(HEADING + "J1,1,2,-,galaxy,confident,doi\n")
    monkeypatch.undo()
    monkeypatch.syspath_prepend(data.parents[1])
    assert read_list(options("lenscat"), str(tmp_path)).table["name"].to_pylist() == ["J1"]


@pytest.mark.data
def test_lenscat_itself_is_read(data: Path) -> None:
    path = data / "catalogues" / "lenscat" / "catalog.csv"
    known = read_list(options(path), ".")
    with path.open(encoding="utf-8") as file:
        assert known.table.num_rows == sum(1 for _ in csv.reader(file)) - 1
    assert set(known.table["grade"].unique().to_pylist()) == {"confident", "probable"}
    assert known.table["reference"].null_count == 0


def test_a_long_list_costs_no_memory_where_no_source_is() -> None:
    """Sources in a narrow strip of declination, as surveys have them, and lenses all around it."""
    rng = np.random.default_rng(5)
    n = 200_000
    table = pa.table(
        {
            "name": [str(k) for k in range(n)],
            "ra": rng.uniform(0.0, 360.0, n),
            "dec": rng.uniform(-0.5, 0.5, n),
        }
    )
    at = KnownAt(table, 30.0)
    ra_deg, dec_deg = 150.0 + rng.uniform(0, 0.5, 50_000), rng.uniform(-0.5, 0.5, 50_000)
    tracemalloc.start()
    try:
        found = at.names(ra_deg, dec_deg)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert sum(name is not None for name in found) > 1000
    assert peak < 64 * 2**20  # all pairs of the strip: 1.7 × 10⁸
