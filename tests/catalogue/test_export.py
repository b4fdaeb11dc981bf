from __future__ import annotations

import re
import subprocess
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from astropy.table import Table
from hypothesis import example, given
from hypothesis import strategies as st

from lenspipe.catalogue.candidates import Rule, choose, write_candidates
from lenspipe.catalogue.export import export, iau_names, publishable
from lenspipe.catalogue.hats import write_catalogue
from lenspipe.catalogue.tables import open_table
from lenspipe.errors import InputError
from lenspipe.run_directory import RunDirectory
from tests.catalogue.small_run import cap, commit_scores, failure_table, score_table
from tests.tools import require_tool


@pytest.fixture
def run(tmp_path: Path) -> RunDirectory:
    run = RunDirectory(str(tmp_path / "run"))
    tables = [score_table(*cap(300, 150.0, -2.0, 1.0))]
    parts = commit_scores(run, tables, [failure_table([9001, 9002], ["not_found", "unreadable"])])
    write_catalogue(run, parts, "toy", 100)
    chosen = choose(run, parts, Rule(top=12))
    assert chosen is not None
    write_candidates(run, chosen, [], [], {})
    return run


@pytest.mark.parametrize(
    ("ra", "dec", "name"),
    [
        (150.1, 2.2, "J100024.00+021200.0"),
        (157.614, 41.0383, "J103027.36+410217.8"),  # 41.0383° is 41°02′17.88″: not rounded up
        (359.9999999, -0.00001, "J235959.99-000000.0"),
        (0.0, -90.0, "J000000.00-900000.0"),
        (-10.0, 89.99999, "J232000.00+895959.9"),
        (15.0 / 3600 * 59.999, 0.0, "J000059.99+000000.0"),
    ],
)
def test_names_are_truncated(ra: float, dec: float, name: str) -> None:
    assert iau_names(np.array([ra]), np.array([dec])) == [name]
    assert iau_names(np.array([ra]), np.array([dec]), "PS1") == [f"PS1 {name}"]


@given(st.floats(0.0, 360.0, exclude_max=True), st.floats(-90.0, 90.0))
@example(359.9999999999999, 0.0)
def test_a_name_holds_the_position_to_its_last_digit(ra: float, dec: float) -> None:
    from lenspipe.catalogue.position import parse_name

    [name] = iau_names(np.array([ra]), np.array([dec]))
    found_ra, found_dec = parse_name(name)
    past = (ra - found_ra + 180.0) % 360.0 - 180.0  # what is all but 360° is named 0
    assert -1e-8 <= past * 240 < 0.01 + 1e-8  # seconds of time
    assert -1e-8 <= (abs(dec) - abs(found_dec)) * 3600 < 0.1 + 1e-8


def test_candidates_have_the_columns_of_published_catalogues_first(run: RunDirectory) -> None:
    candidates = open_table(run, "candidates")
    assert isinstance(candidates, pa.Table)
    table = publishable(candidates)
    assert table.column_names == [
        "name", "ra", "dec", "score", "probability", "grade", "votes", "references",
        "rank", "object_id", "flags", "has_stamp", "known_lens",
    ]  # fmt: skip
    assert table["object_id"].equals(candidates["object_id"])
    assert table["grade"].null_count == table.num_rows == 12
    assert all(field.metadata[b"description"] for field in table.schema)


def test_export_counts_and_writes(run: RunDirectory, tmp_path: Path) -> None:
    assert export(run, str(tmp_path / "a.parquet"), acronym="PS1") == 12
    found = pq.read_table(tmp_path / "a.parquet")
    assert found["name"][0].as_py().startswith("PS1 J")
    assert found["rank"].to_pylist() == list(range(1, 13))
    assert export(run, str(tmp_path / "s.parquet"), "scores") == 300
    scored = run.read_folder("scores", ("score",))
    assert scored is not None
    both = [t.sort_by("object_id") for t in (pq.read_table(tmp_path / "s.parquet"), scored)]
    assert both[0].equals(both[1])
    assert export(run, str(tmp_path / "f.csv"), "failures") == 2
    assert "unreadable" in (tmp_path / "f.csv").read_text()


def test_wrong_tables_and_files_are_told(run: RunDirectory, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"^--table: expected one of scores, candidates, failures"):
        export(run, str(tmp_path / "a.csv"), "galaxies")
    with pytest.raises(InputError, match=r"^FILE: expected a name that ends in"):
        export(run, str(tmp_path / "a.doc"))
    empty = RunDirectory(str(tmp_path / "none"))
    for table in ("scores", "candidates", "failures"):
        with pytest.raises(InputError, match=rf"^--table: expected a run with {table}"):
            export(empty, str(tmp_path / "a.csv"), table)


@pytest.mark.tool
@pytest.mark.parametrize("table", ["candidates", "failures"])
def test_votlint_finds_nothing(run: RunDirectory, tmp_path: Path, table: str) -> None:
    stilts = require_tool("stilts")
    export(run, str(tmp_path / "a.vot"), table)
    command = [stilts, "votlint", "ucd=true", "unit=true", str(tmp_path / "a.vot")]
    found = subprocess.run(command, capture_output=True, text=True, check=False, timeout=150)
    assert (found.returncode, found.stdout) == (0, ""), found.stdout + found.stderr


@pytest.mark.data
def test_names_are_those_of_published_lists(data: Path) -> None:
    """Names to the last digit of lenses in lenscat. Its positions are rounded to 0.018″ or more,
    and some authors round names, so that one unit of the last digit is left open."""
    listed = Table.read(data / "catalogues" / "lenscat" / "catalog.csv")
    given = re.compile(r"J(\d\d)(\d\d)(\d\d\.\d\d)([+-])(\d\d)(\d\d)(\d\d\.\d)$")

    def units(name: str) -> tuple[int, int]:
        """Hundredths of a second, and tenths of an arcsecond."""
        found = given.search(name)
        assert found is not None
        h, m, s, sign, d, minute, second = found.groups()
        ra = round(100 * (3600 * int(h) + 60 * int(m) + float(s)))
        dec = round(10 * (3600 * int(d) + 60 * int(minute) + float(second)))
        return ra, dec if sign == "+" else -dec

    rows = [row for row in listed if given.search(str(row["name"]).strip())]
    ra, dec = (np.array([row[name] for row in rows], float) for name in ("RA [deg]", "DEC [deg]"))
    ours = [units(name) for name in iau_names(ra, dec)]
    theirs = [units(str(row["name"]).strip()) for row in rows]
    apart = np.abs(np.subtract(ours, theirs)).max(axis=1)
    assert len(rows) > 150
    assert np.mean(apart <= 1) > 0.97
