"""Fits of blenders by file name; what a fit gives are the options of the same file in
`lenspipe.blenders`, where the definition of each blend is. `nodes` of a file says the same blend in
ONNX, see `training.blend.onnx_graph`."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from types import ModuleType
from typing import Any

import numpy as np
from jaxtyping import Bool, Float
from pydantic import ValidationError

from lenspipe import blenders, registry
from lenspipe.cutouts.base import Block
from lenspipe.problems import first_problem

HELPERS = ("calibration", "cascade", "diversity", "logistic_fit", "onnx_graph")


def names() -> list[str]:
    """Every blender that can be fitted."""
    return registry.names(sys.modules[__name__], HELPERS)


def parse(name: str, parameters: Mapping[str, Any]) -> Block:
    """Parameters checked against the fit's own; InputError names the key."""
    model: type[Block] = _load(name).Parameters
    try:
        return model.model_validate(dict(parameters))
    except ValidationError as error:
        raise first_problem(error, "blender.parameters") from error


def fit(
    name: str,
    parameters: Mapping[str, Any],
    logits: Float[np.ndarray, "n member"],
    positive: Bool[np.ndarray, " n"],
) -> blenders.BlenderOptions:
    """Fit blender `name` to the members' logits on a set that none of them was trained on."""
    options = _load(name).fit(parse(name, parameters), logits.astype(np.float64), positive)
    return blenders.parse({"kind": name, **options}, logits.shape[1])


def _load(name: str) -> ModuleType:
    return registry.load(sys.modules[__name__], name, "blender.name", HELPERS)
