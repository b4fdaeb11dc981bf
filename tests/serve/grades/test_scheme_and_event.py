from __future__ import annotations

import json
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from lenspipe.errors import InputError
from lenspipe.serve.grades.event import NewEvent, parse_object_id
from lenspipe.serve.grades.scheme import DEFAULT, load_scheme, parse_scheme

TWO = [{"name": "lens", "key": "l", "value": 1}, {"name": "no", "key": "n", "value": 0}]


def test_the_default_says_lens_from_b_on() -> None:
    assert DEFAULT.names == ("A", "B", "C", "X")
    assert [DEFAULT.says_lens(name) for name in DEFAULT.names] == [True, True, False, False]
    assert parse_scheme(json.loads(DEFAULT.as_json())) == DEFAULT


def test_a_scheme_is_read_from_yaml(tmp_path: Path) -> None:
    (tmp_path / "s.yaml").write_text(
        "grades:\n"
        "- {name: lens, key: l, value: 2}\n"
        "- {name: unsure, key: u, value: 1, label: look again}\n"
        "- {name: spiral, key: s, value: 0}\n"
        "- {name: ring, key: r, value: 0}\n"
        "lens_from: 2\n"
    )
    scheme = load_scheme(tmp_path / "s.yaml")
    assert scheme.values == (2.0, 1.0, 0.0, 0.0)
    assert not scheme.says_lens("unsure")
    with pytest.raises(InputError, match=r"^grade: expected one of lens, unsure"):
        scheme.require("A")


@pytest.mark.parametrize(
    ("content", "line"),
    [
        ([], "scheme: expected a mapping with `grades`"),
        ({"grades": TWO, "more": 1}, "scheme.more: expected a known key"),
        ({"grades": TWO[:1]}, "scheme.grades: expected at least 2 entries"),
        ({"grades": [*TWO, {**TWO[0], "key": "m"}]}, "scheme: expected each name once"),
        ({"grades": [TWO[0], {**TWO[1], "key": "L"}]}, "scheme: expected each key once"),
        ({"grades": [TWO[0], {**TWO[1], "key": "ab"}]}, "scheme.grades.1.key: expected text that"),
        ({"grades": [TWO[0], {**TWO[1], "key": "/"}]}, "scheme: expected no key of"),
        ({"grades": [TWO[0], {**TWO[1], "value": 1}]}, "scheme: expected at least two different"),
        (
            {"grades": [TWO[0], {**TWO[1], "value": "x"}]},
            "scheme.grades.1.value: expected a number",
        ),
        ({"grades": TWO, "lens_from": 3}, "scheme: expected lens_from above 0 and at most 1"),
    ],
)
def test_a_wrong_scheme_is_one_line(content: Any, line: str) -> None:
    with pytest.raises(InputError) as raised:
        parse_scheme(content)
    assert str(raised.value).startswith(line)
    assert "\n" not in str(raised.value)


GOOD: dict[str, Any] = {"key": "k", "grader": "ana", "kind": "grade", "object_id": 7, "grade": "A"}


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"key": ""}, "key"),
        ({"key": "x" * 101}, "key"),
        ({"grader": " ana"}, "grader"),
        ({"grader": "a\u202eb"}, "grader"),
        ({"kind": "delete"}, "kind"),
        ({"view": "wall"}, "view"),
        ({"object_id": None}, "object_id"),
        ({"object_id": True}, "object_id"),
        ({"object_id": 2**64}, "object_id"),
        ({"object_id": 1.5}, "object_id"),
        ({"object_id": "a\0"}, "object_id"),
        ({"grade": None}, "grade"),
        ({"comment": "too"}, "comment"),
        ({"kind": "flag"}, "grade"),
        ({"kind": "undo", "grade": None}, "object_id"),
        ({"kind": "comment", "grade": None}, "comment"),
        ({"kind": "comment", "grade": None, "comment": "\ud800"}, "comment"),
        ({"kind": "comment", "grade": None, "comment": "x" * 10_001}, "comment"),
        ({"seconds_looked": -1.0}, "seconds_looked"),
        ({"seconds_looked": float("nan")}, "seconds_looked"),
        ({"time_utc": datetime(2026, 1, 1)}, "time_utc"),
    ],
)
def test_a_wrong_event_names_its_field(changes: dict[str, Any], field: str) -> None:
    NewEvent(**GOOD)
    with pytest.raises(InputError) as raised:
        NewEvent(**{**GOOD, **changes})
    assert raised.value.field == field


def test_ids_from_outside_have_one_form() -> None:
    assert parse_object_id("-12", integers=True) == -12
    assert parse_object_id("012", integers=False) == "012"
    for text in ("012", "1.0", "", " 1", "١", "1_0", str(2**64)):
        with pytest.raises(InputError, match=r"^object_id: expected an integer"):
            parse_object_id(text, integers=True)
