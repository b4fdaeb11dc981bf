from __future__ import annotations

import pytest

from lenspipe.errors import InputError, one_line


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("a\nb\r\n\tc", "a b c"),
        ("red \x1b[31m", r"red \u001b[31m"),
        ("\x9b2J", r"\u009b2J"),
        ("nul\x00", r"nul\u0000"),
        ("left\u202ethgir", r"left\u202ethgir"),
        ("\udcff", r"\udcff"),
        ("Müller ★ 星", "Müller ★ 星"),
    ],
)
def test_what_came_from_a_file_does_not_steer_the_terminal(text: str, line: str) -> None:
    assert one_line(text) == line
    assert str(InputError("field", "x", text)) == f"field: expected x, found {line}"
    one_line(text).encode()


def test_a_line_is_bounded_however_long_the_text() -> None:
    assert len(one_line("x" * 10**7)) < 2100
    assert len(one_line(" " * 10**7 + "x")) < 2100
    assert len(one_line("\x1b" * 10**6)) < 20_000
