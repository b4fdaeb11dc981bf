"""What a person writes for a place on the sky: degrees, sexagesimal, or a name that holds them."""

from __future__ import annotations

import re
from collections.abc import Sequence

from lenspipe.errors import InputError

# DDD.D and DDD.D, alone or with a comma; anything else is read as sexagesimal.
_NUMBER = r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?"
_DEGREES = re.compile(rf"\s*({_NUMBER})\s*(?:deg|d|°)?\s*")
# J103027.4+410218 or J1030+4102, at the end of a name. Truncated digits are what names have.
_NAMED = re.compile(
    r"(?:.*[^0-9A-Za-z])?J(\d{2})(\d{2})(\d{2}(?:\.\d*)?)?([+-])(\d{2})(\d{2})(\d{2}(?:\.\d*)?)?"
)
_RADIUS = re.compile(
    rf"\s*({_NUMBER})\s*(arcsec|arcmin|deg|\"|''|'|″|′|°|s|m|d)?\s*", re.IGNORECASE
)
_IN_DEG = {
    "deg": 1.0, "d": 1.0, "°": 1.0,
    "arcmin": 1 / 60, "'": 1 / 60, "′": 1 / 60, "m": 1 / 60,
    "arcsec": 1 / 3600, '"': 1 / 3600, "''": 1 / 3600, "″": 1 / 3600, "s": 1 / 3600,
}  # fmt: skip


def parse_place(texts: Sequence[str]) -> tuple[float, float, float]:
    """(ra, dec, radius) in degrees of three texts RA, DEC, RADIUS, or of two: a position in one
    text (`10:00:26.2 +02:11:35`) or a name that holds its coordinates, and RADIUS. InputError names
    the one that is none."""
    if len(texts) == 3:
        return *parse_position(texts[0], texts[1]), parse_radius(texts[2])
    if len(texts) == 2:
        parts = texts[0].replace(",", " ").split()
        paired = len(parts) in {2, 6} and "J" not in texts[0]
        half = len(parts) // 2
        place = (
            parse_position(" ".join(parts[:half]), " ".join(parts[half:]))
            if paired
            else parse_name(texts[0])
        )
        return *place, parse_radius(texts[1])
    raise InputError(
        "command line", 'RA DEC RADIUS, "RA DEC" RADIUS, or NAME RADIUS', " ".join(texts)
    )


def parse_position(ra: str, dec: str) -> tuple[float, float]:
    """(ra, dec) in degrees, ICRS, of two texts: degrees (`150.1`), or hours and degrees in
    sexagesimal (`10:00:24.1`, `10h00m24.1s`, `10 00 24.1`). InputError names the one that is
    neither."""
    return _parse_ra(ra), _parse_dec(dec)


def parse_name(name: str) -> tuple[float, float]:
    """(ra, dec) in degrees of a name that holds its coordinates (`SDSS J103027.4+410218`); the
    digits that a name leaves off are nought. InputError where it holds none."""
    found = _NAMED.fullmatch(name.strip())
    if found is None:
        raise InputError("RA", "a number, HH:MM:SS, or a name with JHHMMSS.s+DDMMSS in it", name)
    hours, minutes, seconds, sign, degrees, arcminutes, arcseconds = found.groups()
    dec = f"{sign}{degrees}:{arcminutes}:{arcseconds or '0'}"
    return parse_position(f"{hours}:{minutes}:{seconds or '0'}", dec)


def parse_radius(text: str, field: str = "RADIUS") -> float:
    """Degrees of a radius: a number of arcsec, or one with its unit (`2"`, `1.5arcmin`, `0.1deg`).
    InputError where it is none or not positive."""
    found = _RADIUS.fullmatch(text)
    expected = "a number of arcsec, or one with arcsec, arcmin or deg"
    if found is None:
        raise InputError(field, expected, repr(text))
    value = float(found[1]) * _IN_DEG[(found[2] or "arcsec").lower()]
    if not 0.0 < value <= 180.0:
        raise InputError(field, "an angle above 0 and up to 180 degrees", repr(text))
    return value


def _parse_ra(text: str) -> float:
    plain = _DEGREES.fullmatch(text)
    value = float(plain[1]) if plain else _sexagesimal("RA", text, "hourangle")
    if not -360.0 <= value <= 360.0:
        raise InputError("RA", "degrees within 0..360", repr(text))
    return value % 360.0


def _parse_dec(text: str) -> float:
    plain = _DEGREES.fullmatch(text)
    value = float(plain[1]) if plain else _sexagesimal("DEC", text, "deg")
    if not -90.0 <= value <= 90.0:
        raise InputError("DEC", "degrees within -90..90", repr(text))
    return value


def _sexagesimal(field: str, text: str, unit: str) -> float:
    from astropy import units
    from astropy.coordinates import Angle

    try:
        return float(Angle(text, unit=units.Unit(unit)).deg)
    except (ValueError, TypeError, units.UnitsError) as error:
        kind = "HH:MM:SS" if field == "RA" else "±DD:MM:SS"
        raise InputError(field, f"a number of degrees, or {kind}", repr(text)) from error
