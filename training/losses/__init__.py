"""Losses by file name: each file has its `Parameters` and `loss(parameters, logits, labels)`."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from types import ModuleType
from typing import Any

from pydantic import ValidationError
from torch import Tensor

from lenspipe import registry
from lenspipe.cutouts.base import Block
from lenspipe.problems import first_problem

Loss = Callable[[Tensor, Tensor], Tensor]


def names() -> list[str]:
    """Every loss there is."""
    return registry.names(sys.modules[__name__])


def parse(name: str, parameters: Mapping[str, Any]) -> Block:
    """Parameters checked against the loss's own; InputError names the key."""
    model: type[Block] = _load(name).Parameters
    try:
        return model.model_validate(dict(parameters))
    except ValidationError as error:
        raise first_problem(error, "loss.parameters") from error


def build(name: str, parameters: Mapping[str, Any]) -> Loss:
    """Loss `name` as a function of logits (batch,) and labels (batch,) in [0, 1]; a scalar."""
    module, parsed = _load(name), parse(name, parameters)

    def loss(logits: Tensor, labels: Tensor) -> Tensor:
        value: Tensor = module.loss(parsed, logits, labels)
        return value

    return loss


def _load(name: str) -> ModuleType:
    return registry.load(sys.modules[__name__], name, "loss.name")
