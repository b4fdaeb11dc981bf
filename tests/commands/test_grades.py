"""`lenspipe grades …` as a user calls it."""

from __future__ import annotations

from pathlib import Path

import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from lenspipe.commands.grades import app
from lenspipe.errors import InputError
from lenspipe.run_directory import GRADES
from tests.serve.grades.graded_run import make_run


def ask(*arguments: str | Path) -> str:
    done = CliRunner().invoke(app, [str(each) for each in arguments])
    if isinstance(done.exception, InputError):
        raise done.exception
    assert done.exit_code == 0, done.output
    return done.output


def test_grades_go_in_and_out(tmp_path: Path) -> None:
    run = tmp_path / "run"
    make_run(run)
    (tmp_path / "ana.csv").write_text("object_id,grade\n0,A\n1,X\n2,B\n50,A\n")
    (tmp_path / "bo.csv").write_text("object_id,grade\n0,A\n1,B\n2,B\n")
    (tmp_path / "known.csv").write_text("object_id,is_lens,kind\n2,true,known_lens\n1,false,\n")
    with pytest.raises(InputError, match="expected a file with grades, found none"):
        ask("show", run)
    told = ask("import", run, tmp_path / "ana.csv", "--grader", "ana")
    assert told == "4 new events, 0 known before; 1 of 4 objects are no candidates\n"
    told = ask("import", run, tmp_path / "ana.csv", "--grader", "ana")
    assert told.startswith("0 new events, 4 known before")
    ask("import", run, tmp_path / "bo.csv", "--grader", "bo")
    (tmp_path / "later.csv").write_text("object_id,grade\n1,B\n")
    ask("import", run, tmp_path / "later.csv", "--grader", "ana")
    told = ask("import", run, tmp_path / "ana.csv", "--grader", "ana")
    assert told.startswith("0 new events, 4 known before (1 of them overruled since); ")
    (tmp_path / "last.csv").write_text("object_id,grade\n1,X\n0,A\n")
    assert ask("import", run, tmp_path / "last.csv", "--grader", "ana").startswith("2 new events")
    assert ask("hidden", run, tmp_path / "known.csv") == "2 new hidden objects of 2\n"
    shown = ask("show", run)
    assert "ana: completeness      1/1 = 1.000" in shown
    assert "bo: false positives    1/1 = 1.000" in shown
    # Of three objects one differs: A A, X B, B B.
    assert "ana, bo: kappa         0.500" in shown
    told = ask("labels", run, tmp_path / "set.h5")
    assert told == f"2 lenses and 1 others in {tmp_path / 'set.h5'}; 0 labels without a stamp\n"

    told = ask("export", run, tmp_path / "events.parquet")
    assert told == f"10 rows in {tmp_path / 'events.parquet'}\n"
    ask("export", run, tmp_path / "grades.parquet", "--table", "grades")
    assert pq.read_table(tmp_path / "grades.parquet")["grade"].to_pylist() == ["A", "X", "B", "A"]
    other = tmp_path / "other.sqlite"
    told = ask("import", run, tmp_path / "events.parquet", "--grades", other)
    assert told.startswith("10 new events")
    told = ask("show", run, "--grades", other)
    assert [line.split() for line in told.splitlines()[2:4]] == [
        ["ana", "4", "graded,", "0", "flagged"],
        ["bo", "3", "graded,", "0", "flagged"],
    ]
    assert (run / GRADES).exists()


def test_the_scheme_is_shown_and_set(tmp_path: Path) -> None:
    run = tmp_path / "run"
    make_run(run)
    (tmp_path / "s.yaml").write_text(
        "grades: [{name: yes!, key: y, value: 1}, {name: no!, key: n, value: 0, label: other}]\n"
    )
    told = ask("scheme", run, tmp_path / "s.yaml")
    assert told.splitlines() == [
        "yes!       key y, value 1",
        "no!        key n, value 0, other",
        "lens from  0.5",
    ]
    assert ask("scheme", run) == told
    with pytest.raises(InputError, match=r"^--table: expected grade_events or grades"):
        ask("export", run, tmp_path / "a.csv", "--table", "scores")
    with pytest.raises(InputError, match=r"^run: expected a run directory"):
        ask("show", tmp_path)
