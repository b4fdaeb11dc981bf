from __future__ import annotations

import re
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lenspipe.catalogue.export import export
from lenspipe.catalogue.graded import open_grade_events, open_grades
from lenspipe.catalogue.query import ask, query, query_limits
from lenspipe.catalogue.tables import open_tables
from lenspipe.errors import InputError
from lenspipe.run_directory import GRADES, RunDirectory
from lenspipe.serve.grades.event import NewEvent, ObjectId
from lenspipe.serve.grades.store import Hidden, open_store
from lenspipe.serve.query_process import PRIVATE
from tests.serve.grades.graded_run import make_run


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> RunDirectory:
    folder = tmp_path_factory.mktemp("graded")
    run = make_run(folder)
    with open_store(folder / GRADES) as store:
        store.add_hidden([Hidden(3, True), Hidden("sim-1", False)])
        grades: dict[str, dict[ObjectId, str]] = {
            "ana": {0: "A", 1: "X", 3: "A", "sim-1": "X"},
            "bo": {0: "B"},
        }
        for who, given in grades.items():
            for each, grade in given.items():
                store.append(NewEvent(f"g{each}", who, "grade", each, grade))
        store.append(NewEvent("f", "bo", "flag", 5))
        store.append(NewEvent("c", "bo", "comment", 0, comment="ring"))
        store.append(NewEvent("d", "ana", "grade", 77, "C"))  # no candidate
        store.append(NewEvent("u", "bo", "seen", 7))
    return run


def test_grades_are_a_table_of_the_run(run: RunDirectory) -> None:
    table = open_grades(run)
    assert table is not None
    assert table["object_id"].to_pylist() == [0, 1, 3, 5, 77]
    assert table["grade"].to_pylist() == ["B", "X", "A", None, "C"]
    assert table["votes"].to_pylist() == [2, 1, 1, 0, 1]
    assert table["grade_mean"].to_pylist() == [2.5, 0.0, 3.0, None, 1.0]
    assert table["flagged_by"].to_pylist() == [0, 0, 0, 1, 0]
    assert table["comments"].to_pylist() == ["bo: ring", None, None, None, None]
    assert table["training"].to_pylist() == [False, False, True, False, False]
    combined = table["probability_combined"].to_pylist()
    # The network has 0.9, 0.79 and, where nobody voted, 0.33; the two votes are an A and an X.
    assert combined[0] > 0.8
    assert combined[1] < 0.3
    assert combined[2] == 1.0, "its truth is known"
    assert 0.0 < combined[3] < 0.33, "nobody voted: shifted as the others are"
    assert combined[4] is None
    assert all(field.metadata[b"description"] for field in table.schema)


def test_events_are_a_table_of_the_run(run: RunDirectory) -> None:
    table = open_grade_events(run)
    assert table is not None
    assert table["id"].to_pylist() == list(range(1, 10))
    assert table["object_id"].to_pylist() == [0, 1, 3, None, 0, 5, 0, 77, 7]
    assert table["object_text"].to_pylist()[3] == "sim-1"
    assert all(text.endswith("Z") for text in table["time_utc"].to_pylist())
    assert table.schema.field("seconds_looked").metadata[b"unit"] == b"s"


def test_grades_are_asked_by_sql(run: RunDirectory) -> None:
    found = query(
        run,
        "SELECT c.rank, g.grade FROM candidates c JOIN grades g USING (object_id) ORDER BY 1",
    )
    assert found.to_pydict() == {"rank": [1, 2, 4, 6], "grade": ["B", "X", "A", None]}
    assert query(run, "SELECT count(*) FROM Grade_Events WHERE kind = 'grade'")[0][0].as_py() == 6
    assert "grades" not in open_tables(run, "SELECT * FROM candidates")
    assert {"grades", "grade_events"} <= set(open_tables(run))


def test_candidates_are_published_with_their_grades(run: RunDirectory, tmp_path: Path) -> None:
    export(run, str(tmp_path / "a.parquet"))
    table = pq.read_table(tmp_path / "a.parquet")
    assert table["grade"].to_pylist() == ["B", "X", None, "A", None, None, None, None]
    assert table["votes"].to_pylist() == [2, 1, 0, 1, 0, 0, 0, 0]
    for name, rows in (("grades", 5), ("grade_events", 9)):
        for suffix in (".csv", ".vot", ".fits", ".parquet"):
            assert export(run, str(tmp_path / f"{name}{suffix}"), name) == rows


def test_a_run_that_nobody_graded_has_none(tmp_path: Path) -> None:
    run = make_run(tmp_path, text_ids=True)
    with pytest.raises(InputError, match=r"^--table: expected a run with grades"):
        export(run, str(tmp_path / "a.csv"), "grades")
    looked_at = re.escape(str(tmp_path / GRADES))
    with pytest.raises(InputError, match=rf"the run has no grades: none at {looked_at}; --grades"):
        query(run, "SELECT * FROM grades")
    with pytest.raises(InputError) as raised:  # as an outsider, who may not ask it
        ask(run, "SELECT * FROM grades", query_limits(), without=PRIVATE)
    assert str(tmp_path) not in str(raised.value)
    open_store(tmp_path / GRADES).close()
    table = open_grades(run)
    assert table is not None
    assert (table.num_rows, table.schema.field("object_id").type) == (0, pa.string())
    assert query(run, "SELECT count(*) FROM grade_events")[0][0].as_py() == 0
    export(run, str(tmp_path / "a.parquet"))
    assert pq.read_table(tmp_path / "a.parquet")["votes"].to_pylist() == [0] * 8
