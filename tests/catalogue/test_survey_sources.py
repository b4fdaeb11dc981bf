from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lenspipe.catalogue.export import export
from lenspipe.catalogue.query import query
from lenspipe.errors import InputError
from lenspipe.run_directory import RUN, RunDirectory
from tests.catalogue.small_run import cap, commit_scores, score_table


def write_catalogue(folder: Path) -> None:
    """Two files, the folders' names being a column."""
    for field in (7, 8):
        place = folder / f"field={field}"
        place.mkdir(parents=True)
        ids = [10 * field + k for k in range(3)]
        table = pa.table(
            {"objID": ids, "raMean": [150.0, 151.0, 152.0], "iKronMag": [20.0, -999.0, 21.5]}
        )
        pq.write_table(table, place / "a.parquet")


@pytest.fixture
def run(tmp_path: Path) -> RunDirectory:
    write_catalogue(tmp_path / "survey" / "catalogue")
    run = RunDirectory(str(tmp_path / "run"))
    commit_scores(run, [score_table(*cap(75, 150.0, 2.0, 0.3))])
    tell(run, "catalogue/", str(tmp_path / "survey"))
    return run


def tell(run: RunDirectory, path: Any, base: Any) -> None:
    run.write_json(RUN, {"state": "done", "survey": {"sources": {"path": path}}, "base": base})


def test_rows_are_those_of_the_survey_with_its_own_columns(run: RunDirectory) -> None:
    found = query(run, "SELECT * FROM sources ORDER BY objID")
    assert found.column_names == ["objID", "raMean", "iKronMag", "field"]
    assert found["objID"].to_pylist() == [70, 71, 72, 80, 81, 82]
    assert found["field"].to_pylist() == [7, 7, 7, 8, 8, 8]
    joined = query(
        run,
        "SELECT count(*) FROM scores s JOIN Sources c ON s.object_id = c.objID WHERE c.field = 7",
    )
    assert joined[0][0].as_py() == 3


def test_several_paths_are_one_table(run: RunDirectory, tmp_path: Path) -> None:
    tell(
        run,
        ["catalogue/field=7", str(tmp_path / "survey/catalogue/field=8/a.parquet")],
        str(tmp_path / "survey"),
    )
    assert query(run, "SELECT sum(objID) FROM sources")[0][0].as_py() == 456


def test_it_can_be_exported(run: RunDirectory, tmp_path: Path) -> None:
    assert export(run, str(tmp_path / "a.parquet"), "sources") == 6


@pytest.mark.parametrize(
    ("path", "base", "found"),
    [
        ("gone/", "{survey}", "none in gone/"),
        ("catalogue/", "/nowhere", "none in catalogue/"),
        ("catalogue/", None, "lenspipe run SURVEY.yaml on this run"),
        (None, "{survey}", "found None"),
        ([3], "{survey}", r"\[3\]"),
        ("s3://user:secret@bucket/a", "{survey}", "no user or password"),
    ],
)
def test_one_line_says_why_it_is_not_there(
    run: RunDirectory, tmp_path: Path, path: Any, base: str | None, found: str
) -> None:
    told = None if base is None else base.format(survey=tmp_path / "survey")
    tell(run, path, told)
    with pytest.raises(InputError, match=rf"^query: table sources: expected .*{found}") as raised:
        query(run, "SELECT * FROM sources")
    assert "\n" not in str(raised.value)
    assert "secret" not in str(raised.value)
    assert query(run, "SELECT count(*) FROM scores")[0][0].as_py() == 75
    with pytest.raises(InputError, match=r"^--table sources: expected"):
        export(run, str(tmp_path / "a.csv"), "sources")


def test_a_file_that_is_no_parquet_is_told(run: RunDirectory, tmp_path: Path) -> None:
    (tmp_path / "survey/catalogue/field=7/a.parquet").write_bytes(b"PAR1 and no more")
    with pytest.raises(InputError, match=r"^query: table sources: expected .*readable Parquet"):
        query(run, "SELECT * FROM sources")


def test_a_name_of_the_query_goes_before_it(run: RunDirectory) -> None:
    tell(run, "gone/", "/nowhere")
    assert query(run, "WITH sources AS (SELECT 1 AS x) SELECT x FROM sources")[0][0].as_py() == 1


@pytest.mark.parametrize(
    "name",
    [
        '"sources/../../secret.parquet"',
        "'sources'",
        "'sources/secret.parquet'",
        '"{file}"',
        "sources.secret",
        "main.sources.secret",
        "read_parquet('sources')",
        "query_table('{file}')",
        "parquet_metadata('{file}')",
    ],
)
def test_no_name_in_a_query_reaches_a_file(
    run: RunDirectory, tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "secret.parquet"
    pq.write_table(pa.table({"planted": [1]}), file)
    (tmp_path / "sources").mkdir()
    pq.write_table(pa.table({"planted": [1]}), tmp_path / "sources" / "secret.parquet")
    monkeypatch.chdir(tmp_path)
    tell(run, "gone/", "/nowhere")
    with pytest.raises(InputError, match=r"^query: ") as raised:
        query(run, f"SELECT * FROM {name.format(file=file)}")  # hostile on purpose
    assert "planted" not in str(raised.value)
