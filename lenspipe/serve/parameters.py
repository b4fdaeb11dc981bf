"""Parameters of IVOA services: names in any case, each given once (DALI 1.1, section 3)."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

from lenspipe.errors import InputError


def by_name(pairs: Iterable[tuple[str, str]]) -> dict[str, str]:
    """Parameters by name in capitals. InputError where one is given twice with two values."""
    found: dict[str, str] = {}
    for name, value in pairs:
        key = name.upper()
        if found.get(key, value) != value:
            raise InputError(key, "one value", f"{found[key]!r} and {value!r}")
        found[key] = value
    return found


def number(given: Mapping[str, str], name: str, default: float | None = None) -> float:
    """A finite number. InputError where it is none, or not given and without a default."""
    text = given.get(name, "").strip()
    if not text:
        if default is None:
            raise InputError(name, "a number", "nothing")
        return default
    try:
        value = float(text)
    except ValueError as error:
        raise InputError(name, "a number", repr(text[:80])) from error
    if not math.isfinite(value):
        raise InputError(name, "a finite number", text[:80])
    return value


def whole_number(
    given: Mapping[str, str], name: str, default: int, low: int = 0, high: int | None = None
) -> int:
    """An integer of [low, high]; one above `high` is `high`."""
    text = given.get(name, "").strip()
    if not text:
        return default
    expected = f"a whole number from {low}"
    try:
        value = int(text)
    except ValueError as error:
        raise InputError(name, expected, repr(text[:80])) from error
    if value < low:
        raise InputError(name, expected, value)
    return value if high is None else min(value, high)
