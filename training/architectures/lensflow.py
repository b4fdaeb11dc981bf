"""LensFlow: pixels averaged 3×3, three small convolutions, one dense layer.

Sources: Pourrahmani et al. 2018, arXiv:1705.05857; as in LEXACTUM (Magro et al. 2021,
arXiv:2106.01754, appendix A5).
"""

from __future__ import annotations

from typing import Literal

from jaxtyping import Float
from pydantic import Field
from torch import Tensor, nn

from lenspipe.cutouts.base import Block
from training.architectures.keras_layers import glorot
from training.architectures.layers import Shapes, check_smallest, only

INPUT: Literal["images"] = "images"
BIN = 3
CONVOLUTIONS = ((16, 5), (25, 5), (36, 4))  # feature maps, side of the kernel (pixels)
DENSE = 128


class Parameters(Block):
    """dropout: after the dense layer."""

    dropout: float = Field(default=0.5, ge=0.0, lt=1.0)


class LensFlow(nn.Module):
    """(batch, band, y, x) normalised pixels to logits (batch,)."""

    def __init__(self, p: Parameters, shape: tuple[int, ...]) -> None:
        super().__init__()
        layers: list[nn.Module] = [nn.AvgPool2d(BIN)]
        channels, size = shape[0], shape[1] // BIN
        for width, kernel in CONVOLUTIONS:
            before, after = (kernel - 1) // 2, kernel // 2  # Keras' `same`: an even side pads less
            layers += [
                nn.ZeroPad2d((before, after, before, after)),
                nn.Conv2d(channels, width, kernel),
                nn.ReLU(),
                nn.MaxPool2d(2),
            ]
            channels, size = width, size // 2
        self.features = nn.Sequential(*layers)
        self.head = nn.Sequential(
            nn.Flatten(),
            nn.Linear(channels * size * size, DENSE),
            nn.ReLU(),
            nn.Dropout(p.dropout),
            nn.Linear(DENSE, 1),
        )
        glorot(self)

    def forward(self, x: Float[Tensor, "b band y x"]) -> Float[Tensor, " b"]:
        """Logits."""
        logits: Tensor = self.head(self.features(x))
        return logits.squeeze(1)


def build(parameters: Parameters, shapes: Shapes) -> nn.Module:
    """Network for stamps (band, y, x); binning and three halvings must leave a pixel."""
    shape = only(shapes)
    check_smallest(shape, BIN * 2 ** len(CONVOLUTIONS))
    return LensFlow(parameters, shape)
