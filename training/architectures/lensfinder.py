"""LensFinder: two convolutions with pooling, one dense layer that holds nearly all weights.

Sources: Pearson et al. 2018, Emergent Scientist 2, 1; as in LEXACTUM (Magro et al. 2021,
arXiv:2106.01754, appendix A6), which has one output neuron and no dropout.
"""

from __future__ import annotations

from typing import Literal

from jaxtyping import Float
from torch import Tensor, nn

from lenspipe.cutouts.base import Block
from training.architectures.keras_layers import glorot
from training.architectures.layers import Shapes, check_smallest, only

INPUT: Literal["images"] = "images"
CONVOLUTIONS = ((64, 5), (128, 3))  # feature maps, side of the kernel (pixels)
DENSE = 128


class Parameters(Block):
    """None: the published network leaves nothing to choose."""


class LensFinder(nn.Module):
    """(batch, band, y, x) normalised pixels to logits (batch,)."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        channels, size = shape[0], shape[1]
        for width, kernel in CONVOLUTIONS:
            layers += [
                nn.Conv2d(channels, width, kernel, padding=kernel // 2),
                nn.ReLU(),
                nn.MaxPool2d(2),
            ]
            channels, size = width, size // 2
        self.features = nn.Sequential(*layers)
        self.head = nn.Sequential(
            nn.Flatten(),
            nn.Linear(channels * size * size, DENSE),
            nn.ReLU(),
            nn.Linear(DENSE, 1),
        )
        glorot(self)

    def forward(self, x: Float[Tensor, "b band y x"]) -> Float[Tensor, " b"]:
        """Logits."""
        logits: Tensor = self.head(self.features(x))
        return logits.squeeze(1)


def build(parameters: Parameters, shapes: Shapes) -> nn.Module:  # noqa: ARG001 - none
    """Network for stamps (band, y, x); two poolings must leave a pixel."""
    shape = only(shapes)
    check_smallest(shape, 2 ** len(CONVOLUTIONS))
    return LensFinder(shape)
