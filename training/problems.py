"""A pydantic error as the one line that the user reads."""

from __future__ import annotations

from pydantic import ValidationError

from lenspipe.errors import InputError


def first_problem(error: ValidationError, prefix: str = "") -> InputError:
    """The first thing that `error` found wrong, with the key that it stands under."""
    first = error.errors()[0]
    field = ".".join(str(part) for part in (prefix, *first["loc"]) if str(part)) or "recipe"
    if first["type"] == "extra_forbidden":
        return InputError(field, "a known key", "an unknown one")
    if first["type"] == "missing":
        return InputError(field, "a value", "none")
    message = first["msg"].removeprefix("Value error, ").removeprefix("expected ")
    return InputError(field, message, repr(first.get("input")))
