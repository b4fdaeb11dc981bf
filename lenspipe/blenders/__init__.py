"""Blenders: one score from the members' logits; one file each, the file's name is its kind.

A blender has `Options` (pydantic, with `kind`) and `blend(logits, options)` on plain arrays:
rows do not influence one another, a NaN in any member gives NaN.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from jaxtyping import Float, Float32
from pydantic import BaseModel, ConfigDict, ValidationError

import lenspipe.blenders as _package
from lenspipe import registry
from lenspipe.errors import InputError
from lenspipe.problems import first_problem


class BlenderOptions(BaseModel):
    """Options that every blender takes; unknown keys are refused, values are frozen."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    kind: str

    def check_members(self, members: int) -> None:
        """InputError where the options are for another number of members."""


def names() -> list[str]:
    """The blenders that there are."""
    return registry.names(_package)


def parse(content: Mapping[str, Any], members: int, field: str = "blender") -> BlenderOptions:
    """Validated options of the blender that `content` names, for so many members."""
    kind = content.get("kind")
    module = registry.load(_package, str(kind), f"{field}.kind")
    model: type[BlenderOptions] = module.Options
    try:
        options = model.model_validate(dict(content))
    except ValidationError as error:
        raise first_problem(error, field) from error
    options.check_members(members)
    return options


def blend(logits: Float[np.ndarray, "n m"], options: BlenderOptions) -> Float32[np.ndarray, " n"]:
    """One score per row. InputError where the number of members is not that of the options."""
    options.check_members(logits.shape[1])
    module: Any = registry.load(_package, options.kind, "blender.kind")
    blended = module.blend(logits.astype(np.float64), options)
    return np.asarray(blended, np.float32)


def check_count(field: str, expected: int, members: int) -> None:
    """InputError where a list has one entry per member and their numbers differ."""
    if expected != members:
        raise InputError(field, f"{members} values, one per member", f"{expected}")
