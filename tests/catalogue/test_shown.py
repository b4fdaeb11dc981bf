from __future__ import annotations

import pyarrow as pa
import pytest

from lenspipe.catalogue.shown import show


def test_columns_stand_under_one_another() -> None:
    table = pa.table(
        {"object_id": ["a", "bb"], "ra": [150.1, 2.0], "score": [1.0, None], "n": [1, 200]}
    )
    assert show(table) == [
        "object_id           ra  score    n",
        "a          150.1000000      1    1",
        "bb           2.0000000      –  200",
        "2 rows",
    ]


@pytest.mark.parametrize(
    ("name", "cell"),
    [
        ("RAJ2000", "150.1234567"), ("_DEJ2000", "150.1234567"), ("dec_deg", "150.1234567"),
        ("ra_1", "150.1234567"), ("ra_error", "150.12"), ("radius", "150.12"),
    ],
)  # fmt: skip
def test_positions_of_other_catalogues_have_all_their_digits(name: str, cell: str) -> None:
    assert show(pa.table({name: [150.1234567]}))[1].strip() == cell


def test_what_is_left_out_is_counted() -> None:
    assert show(pa.table({"n": list(range(1200))}), 1)[-1] == "1,200 rows, 1,199 not shown"


def test_nothing_of_a_value_steers_the_terminal() -> None:
    lines = show(pa.table({"object_id\x1b[2J": ["\x1b[31mred", "x" * 100]}))
    assert "\x1b" not in "".join(lines)
    assert len(lines[2]) == 60
