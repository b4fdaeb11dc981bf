"""A pydantic error as the one line that the user reads, in plain words."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from pydantic import ValidationError

from lenspipe.errors import InputError

_LONGEST = 160  # characters of what was found

# Error type -> what would do; braces are filled from the error's context.
_WORDS = {
    "bool_parsing": "true or false",
    "bool_type": "true or false",
    "dict_type": "a mapping of keys to values",
    "enum": "one of {expected}",
    "finite_number": "a finite number",
    "float_parsing": "a number",
    "float_type": "a number",
    "greater_than": "a number above {gt}",
    "greater_than_equal": "a number of at least {ge}",
    "int_from_float": "a whole number",
    "int_parsing": "a whole number",
    "int_type": "a whole number",
    "invalid_key": "names as text",
    "json_invalid": "JSON",
    "json_type": "JSON",
    "less_than": "a number below {lt}",
    "less_than_equal": "a number of at most {le}",
    "list_type": "a list",
    "literal_error": "one of {expected}",
    "mapping_type": "a mapping of keys to values",
    "model_attributes_type": "a mapping of keys to values",
    "model_type": "a mapping of keys to values",
    "none_required": "nothing",
    "path_type": "a path",
    "string_pattern_mismatch": "text that matches {pattern}",
    "string_type": "text",
    "too_long": "at most {max_length} entries",
    "too_short": "at least {min_length} entries",
    "tuple_type": "a list",
}
# What pydantic puts into a location to tell the branches of a union apart.
_BRANCH = re.compile(
    r"^(str|int|float|bool|(constrained-|function-|lax-or-strict\[|chain\[|literal\[|tuple\[|list\[|"
    r"dict\[).*)$"
)
_BRANCH_MODELS = frozenset({"BandImage", "Named"})
_KEY = "[key]"


def first_problem(error: ValidationError, prefix: str = "", whole: str = "file") -> InputError:
    """The first thing that `error` found wrong, with the key that it stands under.

    prefix: where the content stands (`cutouts`, or `model a.onnx: card`); whole: name of the
    field where the content itself is wrong and there is no prefix.
    """
    errors = error.errors()
    location = _location(errors[0]["loc"])
    same = [found for found in errors if _location(found["loc"])[: len(location)] == location]
    # Of a union's branches, one that takes values of this type has the more to say, and of these
    # the one that looked inside.
    same = [found for found in same if not found["type"].endswith("_type")] or same
    deepest = max(same, key=lambda found: len(_location(found["loc"])))
    if len(_location(deepest["loc"])) > len(location):
        location, same = _location(deepest["loc"]), [deepest]
    field = ".".join(part for part in (prefix, *location) if part).replace(":.", ": ").rstrip(":")
    expected = " or ".join(dict.fromkeys(_expected(found) for found in same))
    return InputError(field or whole, expected, _found(same[0]))


def _location(parts: Sequence[int | str]) -> tuple[str, ...]:
    texts = tuple(str(part) for part in parts)
    if texts[-1:] == (_KEY,):  # a key is wrong, and stands before this mark
        texts = texts[:-2]
    return tuple(text for text in texts if not _BRANCH.match(text) and text not in _BRANCH_MODELS)


def _expected(found: Any) -> str:
    kind, context = found["type"], found.get("ctx", {})
    name = "a name" if found["loc"][-1:] == (_KEY,) else "text"
    if kind == "extra_forbidden":
        return "a known key"
    if kind == "missing":
        return "a value"
    if kind == "string_too_short":
        return f"{name} that is not empty"
    if kind == "string_type" and name != "text":
        return "names as text"
    if kind in _WORDS:
        return _WORDS[kind].format(**{key: _plain(value) for key, value in context.items()})
    message = str(found["msg"]).removeprefix("Value error, ").removeprefix("expected ")
    return message.removeprefix("Input should be ")


def _plain(value: Any) -> str:
    """A value of an error's context without the quotes around alternatives."""
    return str(value).replace("'", "")


def _found(found: Any) -> str:
    if found["type"] == "extra_forbidden":
        return "an unknown one"
    if found["type"] == "missing":
        return "none"
    text = repr(found.get("input"))
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]} …"
