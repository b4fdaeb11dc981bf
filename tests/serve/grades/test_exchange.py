from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa
import pytest

from lenspipe.catalogue.formats import write_rows
from lenspipe.catalogue.graded import events_table
from lenspipe.errors import InputError
from lenspipe.serve.grades.event import NewEvent
from lenspipe.serve.grades.exchange import hidden_of, import_rows, read_rows
from lenspipe.serve.grades.state import states_of
from lenspipe.serve.grades.store import GradeStore, Hidden, open_store


@pytest.fixture
def store(tmp_path: Path) -> GradeStore:
    return open_store(tmp_path / "grades.sqlite")


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
@pytest.mark.parametrize("integers", [True, False])
def test_exported_events_are_the_same_elsewhere(
    store: GradeStore, tmp_path: Path, suffix: str, integers: bool
) -> None:
    at = datetime(2026, 3, 1, 12, 0, 0, 120000, UTC)
    mine, foreign = (7, "sim-1") if integers else ("007", 7)
    store.append_all(
        [
            NewEvent(
                "1", "ana", "grade", mine, "A", view="single", seconds_looked=1.5, time_utc=at
            ),
            NewEvent("2", "ana", "comment", mine, comment='a "ring", or\ntwo'),
            NewEvent("3", "ana", "comment", mine, comment=""),
            NewEvent("4", "ana", "undo"),
            NewEvent("1", "bo", "flag", foreign, view="mosaic"),
        ]
    )
    kind = pa.int64() if integers else pa.string()
    path = tmp_path / f"events{suffix}"
    write_rows(events_table(store.events(), kind).to_reader(), str(path), "grade_events")
    with open_store(tmp_path / "other.sqlite") as other:
        done = import_rows(other, read_rows(path), integers=integers)
        assert (done.stored, done.repeated) == (5, 0)
        assert done.object_ids == {mine, foreign}
        assert other.events() == store.events()
        again = import_rows(other, read_rows(path), integers=integers)
        assert (again.stored, again.repeated) == (0, 5)
    with open_store(tmp_path / "ana.sqlite") as other:
        assert import_rows(other, read_rows(path), "bo", integers).stored == 1
    store.close()


def test_a_list_of_grades_counts_once(store: GradeStore, tmp_path: Path) -> None:
    path = tmp_path / "list.csv"
    path.write_text("object_id,grade,comment\n7,A,ring\n8,,\n9,X,\n")
    assert import_rows(store, read_rows(path), "ana").stored == 3
    assert import_rows(store, read_rows(path), "ana").repeated == 3
    assert import_rows(store, read_rows(path), "bo").stored == 3
    kept = [(e.grader, e.object_id, e.grade, e.comment) for e in store.events()][:3]
    assert kept == [("ana", 7, "A", None), ("ana", 7, None, "ring"), ("ana", 9, "X", None)]
    text = import_rows(store, read_rows(path), "cy", integers=False)
    assert text.object_ids == {"7", "9"}
    store.close()


def test_what_is_said_again_later_counts(store: GradeStore, tmp_path: Path) -> None:
    def said(text: str) -> tuple[int, int, int, str]:
        path = tmp_path / "list.csv"
        path.write_text(text)
        done = import_rows(store, read_rows(path), "ana")
        stands = states_of(store.events())["ana"].grades[7]
        return done.stored, done.repeated, done.overruled, stands

    # Without times another file is another time, and the same file is the same.
    assert said("object_id,grade\n7,A\n") == (1, 0, 0, "A")
    assert said("object_id,grade\n7,X\n8,B\n") == (2, 0, 0, "X")
    assert said("object_id,grade\n7,A\n") == (0, 1, 1, "X")
    assert said("object_id,grade\n7,A\n8,B\n") == (2, 0, 0, "A")
    assert said("object_id,grade\n7,A\n8,B\n") == (0, 2, 0, "A")
    # In one file the last row holds, and with times it is they that tell rows apart.
    assert said("object_id,grade\n7,X\n7,A\n7,X\n") == (3, 0, 0, "X")
    first = "7,A,2026-01-01T00:00:00+00:00\n"
    assert said(f"object_id,grade,time_utc\n{first}") == (1, 0, 0, "A")
    more = "7,C,2026-01-02T00:00:00+00:00\n7,A,2026-01-03T00:00:00+00:00\n"
    assert said(f"object_id,grade,time_utc\n{first}{more}") == (2, 1, 0, "A")
    store.close()


@pytest.mark.parametrize(
    ("text", "grader", "line"),
    [
        ("id,grade\n1,A\n", "ana", "FILE: expected a column `object_id`, found id, grade"),
        ("object_id,z\n1,A\n", "ana", "FILE: expected a column `grade` or `comment`"),
        ("object_id,grade\n1,A\n", None, "--grader: expected whose grades these are"),
        ("object_id,grade\n1,A\n2,Q\n", "ana", "FILE: row 2: grade: expected one of A, B, C, X"),
        ("object_id,grade\n1,A\n,B\n", "ana", "FILE: row 2: object_id: expected an integer"),
        ("object_id,grade,time_utc\n1,A,noon\n", "ana", "FILE: row 1: time_utc: expected a time"),
        ("object_id,grade,grader\n1,A,\n", None, "FILE: row 1: grader: expected 1 to 100"),
        ("object_id,key,kind,grader\n1,k,sing,ana\n", None, "FILE: row 1: kind: expected one of"),
        ("object_id,grade\n1,A,B,C\n", "ana", "FILE: expected a readable file"),
        ("", "ana", "FILE: expected a readable file"),
    ],
)
def test_a_wrong_file_is_one_line_and_stores_nothing(
    store: GradeStore, tmp_path: Path, text: str, grader: str | None, line: str
) -> None:
    path = tmp_path / "list.csv"
    path.write_text(text)
    with pytest.raises(InputError) as raised:
        import_rows(store, read_rows(path), grader)
    assert str(raised.value).startswith(line)
    assert "\n" not in str(raised.value)
    assert store.count() == 0
    store.close()


def test_hidden_objects_from_a_file(tmp_path: Path) -> None:
    path = tmp_path / "hidden.csv"
    path.write_text("object_id,is_lens,kind\nsim-1,true,simulated_lens\nsim-2,0,\n")
    assert hidden_of(read_rows(path)) == [
        Hidden("sim-1", True, "simulated_lens"),
        Hidden("sim-2", False),
    ]
    path.write_text("object_id,is_lens\n7,true\nsim-2,no\n")
    assert [each.object_id for each in hidden_of(read_rows(path), integers=True)] == [7, "sim-2"]
    assert [each.object_id for each in hidden_of(read_rows(path), integers=False)] == ["7", "sim-2"]
    path.write_text("object_id,is_lens\n1,perhaps\n")
    with pytest.raises(InputError, match=r"^FILE: row 1: is_lens: expected true or false"):
        hidden_of(read_rows(path))
    for name in ("none.csv", "hidden.doc"):
        (tmp_path / "hidden.doc").touch()
        with pytest.raises(InputError, match=r"^FILE: expected a"):
            read_rows(tmp_path / name)
