"""The target of the survey fuzzer takes what a fuzzer begins with, and sees what it looks for."""

from __future__ import annotations

import pytest

from lenspipe.errors import InputError
from tests.fuzz.fuzz_survey import look, seeds


def test_the_examples_and_their_halves_are_surveys_or_lines() -> None:
    found = seeds()
    assert len(found) > 5
    for text in found.values():
        look(text)
        look(text[: len(text) // 2])
        look(text[len(text) // 2 :])


@pytest.mark.parametrize(
    "data",
    [b"", b"\xff", b"\x00", b"[" * 999, b"x: &a [*a]", b"name: \x1b[2J", b"top: 1e999", b"? {}"],
)
def test_bytes_of_harm_are_lines(data: bytes) -> None:
    look(data)


def test_a_refusal_that_is_no_line_is_a_finding(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(InputError, "__str__", lambda _self: "two\nlines")
    with pytest.raises(AssertionError, match="no line"):
        look(b"name: '../x'")
