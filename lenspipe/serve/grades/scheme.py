"""Which grades there are: names, keys of the keyboard, words, and a number each to compute with."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from jaxtyping import Float64
from pydantic import Field, StringConstraints, ValidationError, model_validator

from lenspipe.cutouts.base import Block, Number
from lenspipe.errors import InputError
from lenspipe.problems import first_problem
from lenspipe.yaml_file import read_yaml

Name = Annotated[str, StringConstraints(pattern=r"^\S(.{0,98}\S)?$")]
Key = Annotated[str, StringConstraints(pattern=r"^[!-~]$")]
# Keys with a meaning of their own while one grades.
RESERVED_KEYS = frozenset("?/")


class Grade(Block):
    """One grade. name: as it is stored. key: the printable character that gives it; a capital is
    the same key. label: what it means. value: larger is more of a lens."""

    name: Name
    key: Key
    label: str = ""
    value: Number


def _check_once(key: str, values: list[str]) -> None:
    twice = sorted({value for value in values if values.count(value) > 1})
    if twice:
        raise ValueError(f"expected each {key} once, found {twice[0]!r} twice")


class Scheme(Block):
    """All grades, the best first as they are shown.

    lens_from: grades whose value is at least so much say "lens"; by default half-way between the
    largest and the smallest value.
    """

    grades: tuple[Grade, ...] = Field(min_length=2, max_length=35)
    lens_from: Number | None = None

    @model_validator(mode="after")
    def _sound(self) -> Scheme:
        _check_once("name", [grade.name for grade in self.grades])
        _check_once("key", [grade.key.lower() for grade in self.grades])
        for grade in self.grades:
            if not grade.name.isprintable():
                raise ValueError(f"expected printable names, found {grade.name!r}")
            if grade.key in RESERVED_KEYS:
                raise ValueError(f"expected no key of {' '.join(sorted(RESERVED_KEYS))}")
        least, most = min(self.values), max(self.values)
        if least == most:
            raise ValueError("expected at least two different values")
        if self.lens_from is not None and not least < self.lens_from <= most:
            raise ValueError(f"expected lens_from above {least:g} and at most {most:g}")
        return self

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the grades."""
        return tuple(grade.name for grade in self.grades)

    @property
    def values(self) -> tuple[float, ...]:
        """Number of each grade."""
        return tuple(grade.value for grade in self.grades)

    @property
    def threshold(self) -> float:
        """Least value that says "lens"."""
        if self.lens_from is not None:
            return self.lens_from
        return 0.5 * (max(self.values) + min(self.values))

    @cached_property
    def codes(self) -> Mapping[str, int]:
        """Name -> its place among the grades."""
        return {name: code for code, name in enumerate(self.names)}

    def array(self) -> Float64[np.ndarray, " k"]:
        """Number of each grade as an array."""
        return np.array(self.values, float)

    def says_lens(self, name: str) -> bool:
        """Whether a grade says "lens"."""
        return self.values[self.codes[name]] >= self.threshold

    def require(self, name: str, field: str = "grade") -> None:
        """InputError where there is no such grade."""
        if name not in self.codes:
            raise InputError(field, f"one of {', '.join(self.names)}", repr(name))

    def as_json(self) -> str:
        """The scheme as `parse_scheme` reads it."""
        return json.dumps(self.model_dump(mode="json"), ensure_ascii=False)


DEFAULT = Scheme(
    grades=(
        Grade(name="A", key="a", label="certain lens", value=3.0),
        Grade(name="B", key="b", label="probable lens", value=2.0),
        Grade(name="C", key="c", label="possible lens", value=1.0),
        Grade(name="X", key="x", label="no lens", value=0.0),
    )
)


def parse_scheme(content: Any, field: str = "scheme") -> Scheme:
    """A scheme from a mapping; InputError names the key that is wrong."""
    if not isinstance(content, dict):
        raise InputError(field, "a mapping with `grades`", type(content).__name__)
    try:
        return Scheme.model_validate(content)
    except ValidationError as error:
        raise first_problem(error, field) from error


def load_scheme(path: str | Path) -> Scheme:
    """A scheme from a YAML file."""
    file = Path(path)
    if not file.is_file():
        raise InputError("scheme", "a YAML file", f"nothing at {file}")
    return parse_scheme(read_yaml(file, str(file)), str(file))
