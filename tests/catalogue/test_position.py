from __future__ import annotations

import pytest

from lenspipe.catalogue.position import parse_name, parse_place, parse_position, parse_radius
from lenspipe.errors import InputError


@pytest.mark.parametrize(
    ("ra", "dec", "expected"),
    [
        ("150.1", "2.2", (150.1, 2.2)),
        ("-10", "-.5", (350.0, -0.5)),
        ("150.1deg", "+2.2d", (150.1, 2.2)),
        ("10:00:24", "-02:12:00", (150.1, -2.2)),
        ("10h00m24s", "2d12m00s", (150.1, 2.2)),
        ("10 00 24", "+02 12 00", (150.1, 2.2)),
        ("0:00:00", "-00:30:00", (0.0, -0.5)),
        ("360", "90", (0.0, 90.0)),
    ],
)
def test_positions(ra: str, dec: str, expected: tuple[float, float]) -> None:
    assert parse_position(ra, dec) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("J100024.0+021200", (150.1, 2.2)),
        ("SDSS J100024.0+021200.0", (150.1, 2.2)),
        ("J1000-0212", (150.0, -2.2)),
        ("PS1 J1000-0012", (150.0, -0.2)),
    ],
)
def test_names_hold_coordinates(name: str, expected: tuple[float, float]) -> None:
    assert parse_name(name) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize(
    "text",
    [
        "10:00:24 +02:12:00",
        "10 00 24 +02 12 00",
        "10h00m24s +02d12m00s",
        "150.1, 2.2",
        "J100024.0+021200",
        "SDSS J100024.0+021200.0",
    ],
)
def test_a_position_in_one_text(text: str) -> None:
    assert parse_place([text, "3.6"]) == pytest.approx((150.1, 2.2, 0.001), abs=1e-12)


def test_half_a_position_is_refused() -> None:
    with pytest.raises(InputError, match=r"^RA: expected a number"):
        parse_place(["10:00:24", "3.6"])


@pytest.mark.parametrize(
    ("text", "arcsec"),
    [("2", 2.0), ('2"', 2.0), ("2''", 2.0), ("2arcsec", 2.0), ("1.5 arcmin", 90.0), ("1'", 60.0),
     ("0.1deg", 360.0), ("1e-3 DEG", 3.6)],
)  # fmt: skip
def test_radii(text: str, arcsec: float) -> None:
    assert parse_radius(text) * 3600 == pytest.approx(arcsec)


@pytest.mark.parametrize("text", ["", "two", "2 parsec", "-1", "0", "200deg", "nan", "inf"])
def test_what_is_no_radius_is_refused(text: str) -> None:
    with pytest.raises(InputError, match=r"^RADIUS: expected"):
        parse_radius(text)


@pytest.mark.parametrize(
    ("ra", "dec", "field"),
    [
        ("north", "0", "RA"),
        ("25:00:00", "0", "RA"),
        ("nan", "0", "RA"),
        ("400", "0", "RA"),
        ("10:61:00", "0", "RA"),
        ("0", "91", "DEC"),
        ("0", "-90:30:00", "DEC"),
        ("0", "", "DEC"),
    ],
)
def test_what_is_no_position_is_refused(ra: str, dec: str, field: str) -> None:
    with pytest.raises(InputError, match=rf"^{field}: expected"):
        parse_position(ra, dec)


@pytest.mark.parametrize("name", ["NGC 1300", "J25", "J9900+0000", ""])
def test_names_without_coordinates_are_refused(name: str) -> None:
    with pytest.raises(InputError, match=r"^RA: expected"):
        parse_name(name)
