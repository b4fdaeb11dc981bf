from __future__ import annotations

from pathlib import Path

import pytest

from lenspipe.errors import InputError
from lenspipe.serve.grades.book import GradeBook
from lenspipe.serve.grades.event import NewEvent
from lenspipe.serve.grades.scheme import parse_scheme
from lenspipe.serve.grades.store import open_store


def test_two_services_see_what_either_stored(tmp_path: Path) -> None:
    path = tmp_path / "grades.sqlite"
    with open_store(path) as first, open_store(path) as second:
        one, two = GradeBook(first), GradeBook(second)
        one.record(NewEvent("1", "ana", "grade", 7, "A"))
        two.record_all([NewEvent("2", "ana", "grade", 8, "B"), NewEvent("1", "bo", "flag", 7)])
        for book in (one, two):
            assert book.state("ana").grades == {7: "A", 8: "B"}
            assert book.graders() == ["ana", "bo"]
        mine = one.state("ana")
        mine.grades.clear()
        mine.flagged.add(1)
        assert one.state("ana").grades == {7: "A", 8: "B"}, "a copy"
        assert one.state("ana").undoable == two.state("ana").undoable
        two.record(NewEvent("3", "ana", "undo"))
        assert one.states()["ana"].grades == {7: "A"}
        assert one.state("nobody").grades == {}


def test_grades_are_those_of_the_scheme(tmp_path: Path) -> None:
    scheme = parse_scheme(
        {
            "grades": [
                {"name": "yes", "key": "y", "value": 1},
                {"name": "no", "key": "n", "value": 0},
            ]
        }
    )
    with open_store(tmp_path / "grades.sqlite") as store:
        book = GradeBook(store, scheme)
        assert GradeBook(store).scheme == scheme
        with pytest.raises(InputError, match=r"^grade: expected one of yes, no, found 'A'"):
            book.record(NewEvent("1", "ana", "grade", 7, "A"))
        assert store.count() == 0
