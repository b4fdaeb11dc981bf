"""`lenspipe query` and `export` as a user calls them."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow.parquet as pq
from typer.testing import CliRunner, Result

from lenspipe.commands.catalogue import app
from lenspipe.run_directory import GRADES
from lenspipe.serve.grades.event import NewEvent
from lenspipe.serve.grades.store import open_store
from tests.serve.grades.graded_run import make_run


def call(*arguments: str | Path) -> Result:
    done = CliRunner().invoke(app, [str(each) for each in arguments])
    assert done.exit_code == 0, done.output
    return done


def test_grades_of_another_place_reach_queries_and_exports(tmp_path: Path) -> None:
    run, place, out = tmp_path / "run", tmp_path / "elsewhere.sqlite", tmp_path / "a.parquet"
    make_run(run)
    with open_store(place) as store:
        store.append(NewEvent("1", "ana", "grade", 0, "A"))
    told = call("query", run, "SELECT grade FROM grades", "--grades", place)
    assert told.stdout.split() == ["grade", "A", "1", "rows"]
    told = call("export", run, out, "--grades", place)
    assert (told.stdout, told.stderr) == (f"8 rows in {out}\n", "")
    assert pq.read_table(out)["grade"].to_pylist() == ["A", *[None] * 7]


def test_an_export_without_grades_says_where_they_were_looked_for(tmp_path: Path) -> None:
    run, out = tmp_path / "run", tmp_path / "a.parquet"
    make_run(run)
    told = call("export", run, out)
    assert told.stdout == f"8 rows in {out}\n"
    event = json.loads(told.stderr)
    assert event["text"] == (
        f"no grades at {run / GRADES}: columns grade and votes are empty; --grades names another "
        "place"
    )
    open_store(run / GRADES).close()
    assert call("export", run, out).stderr == ""
