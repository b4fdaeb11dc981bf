"""Dense network on catalogue photometry: colours, magnitudes, errors, missing-band flags.

After the catalogue network of the Pan-STARRS search (Cañameras et al. 2020, HOLISMOKES II,
arXiv:2004.13048).
"""

from __future__ import annotations

from typing import Literal

from jaxtyping import Float
from pydantic import Field, PositiveInt
from torch import Tensor, nn

from lenspipe.cutouts.base import Block
from lenspipe.errors import InputError
from training.architectures.layers import Shapes, only

INPUT: Literal["features"] = "features"


class Parameters(Block):
    """widths: neurons of each hidden layer."""

    widths: tuple[PositiveInt, ...] = Field(default=(64, 64, 32), min_length=1)
    dropout: float = Field(default=0.1, ge=0.0, lt=1.0)


class PhotometryMLP(nn.Module):
    """(batch, feature) standardised features to logits (batch,)."""

    def __init__(self, p: Parameters, features: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        inputs = features
        for width in p.widths:
            layers += [nn.Linear(inputs, width), nn.SiLU(), nn.Dropout(p.dropout)]
            inputs = width
        layers.append(nn.Linear(inputs, 1))
        self.layers = nn.Sequential(*layers)

    def forward(self, x: Float[Tensor, "b feature"]) -> Float[Tensor, " b"]:
        """Logits."""
        logits: Tensor = self.layers(x)
        return logits.squeeze(1)


def build(parameters: Parameters, shapes: Shapes) -> nn.Module:
    """Network for vectors (feature,)."""
    shape = only(shapes)
    if len(shape) != 1:
        raise InputError("architecture.name", "one that takes images", "photometry_mlp")
    return PhotometryMLP(parameters, shape[0])
