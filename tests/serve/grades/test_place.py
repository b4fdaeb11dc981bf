"""Where grades are looked for by what only reads them."""

from __future__ import annotations

from pathlib import Path

import pyarrow.parquet as pq
import pytest

import lenspipe
from lenspipe.catalogue.export import export
from lenspipe.catalogue.query import query
from lenspipe.errors import InputError
from lenspipe.serve.grades.event import NewEvent
from lenspipe.serve.grades.store import open_store
from tests.serve.grades.graded_run import make_run


def test_grades_are_taken_from_where_they_are_said_to_be(tmp_path: Path, where: str) -> None:
    """As from the run's own file, in another file or in PostgreSQL."""
    folder = tmp_path / "run"
    run = make_run(folder)
    with open_store(where) as store:
        store.append(NewEvent("1", "ana", "grade", 2, "B"))
    assert query(run, "SELECT grade FROM grades", grades=where)["grade"].to_pylist() == ["B"]
    assert query(run, "SELECT key FROM grade_events", grades=where).num_rows == 1
    opened = lenspipe.open_run(folder, grades=where)
    assert opened.sql("SELECT grade FROM grades")["grade"].tolist() == ["B"]
    export(run, str(tmp_path / "a.parquet"), grades=where)
    assert pq.read_table(tmp_path / "a.parquet")["votes"].to_pylist() == [0, 0, 1, 0, 0, 0, 0, 0]
    assert export(run, str(tmp_path / "g.csv"), "grades", grades=where) == 1
    with pytest.raises(InputError, match="the run has no grades"):
        query(run, "SELECT * FROM grades")
    with pytest.raises(InputError, match="expected a file with grades, found none"):
        export(run, str(tmp_path / "a.parquet"), grades=str(tmp_path / "none.sqlite"))
