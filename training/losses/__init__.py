"""Losses by file name: each file has its `Parameters` and `loss(parameters, logits, labels)`."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from typing import Any

from pydantic import ValidationError
from torch import Tensor

from lenspipe import registry
from lenspipe.problems import first_problem

Loss = Callable[[Tensor, Tensor], Tensor]


def names() -> list[str]:
    """Every loss there is."""
    return registry.names(sys.modules[__name__])


def build(name: str, parameters: Mapping[str, Any]) -> Loss:
    """Loss `name` as a function of logits (batch,) and labels (batch,) in [0, 1]; a scalar."""
    module = registry.load(sys.modules[__name__], name, "loss.name")
    try:
        parsed = module.Parameters.model_validate(dict(parameters))
    except ValidationError as error:
        raise first_problem(error, "loss.parameters") from error

    def loss(logits: Tensor, labels: Tensor) -> Tensor:
        value: Tensor = module.loss(parsed, logits, labels)
        return value

    return loss
