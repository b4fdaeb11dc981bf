"""Networks by file name: each file is one family with its `Parameters` and its `build`."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any, Literal, Protocol, cast

from pydantic import ValidationError
from torch import nn

from lenspipe import registry
from lenspipe.cutouts.base import Block
from lenspipe.problems import first_problem
from training.architectures.layers import Shapes

HELPERS = ("keras_layers", "layers")


class Architecture(Protocol):
    """What an architecture's file holds.

    INPUT: `images` where the network takes (batch, band, y, x), `features` where (batch, feature).
    Of an architecture that takes several inputs, `forward` has them in the order of `shapes`.
    """

    INPUT: Literal["images", "features"]
    Parameters: type[Block]

    def build(self, parameters: Any, shapes: Shapes) -> nn.Module:
        """The network for inputs of `shapes`; it returns logits (batch,)."""
        ...


def names() -> list[str]:
    """Every architecture there is."""
    return registry.names(sys.modules[__name__], HELPERS)


def load(name: str) -> Architecture:
    """The architecture's file; InputError lists what there is."""
    module = registry.load(sys.modules[__name__], name, "architecture.name", HELPERS)
    return cast(Architecture, module)


def parse(name: str, parameters: Mapping[str, Any]) -> Block:
    """Parameters checked against the architecture's own; InputError names the key."""
    try:
        return load(name).Parameters.model_validate(dict(parameters))
    except ValidationError as error:
        raise first_problem(error, "architecture.parameters") from error


def build(name: str, parameters: Mapping[str, Any], shapes: Shapes) -> nn.Module:
    """Network `name` for inputs by name: (band, y, x) or (feature,), without the batch."""
    return load(name).build(parse(name, parameters), shapes)
