"""CAS Swinburne: three convolutions with large kernels and coarse pooling, two wide dense layers.

Sources: Jacobs et al. 2017, arXiv:1704.02744; as in LEXACTUM (Magro et al. 2021,
arXiv:2106.01754, appendix A1).
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
CONVOLUTIONS = ((96, 11), (128, 5), (256, 3))  # feature maps, side of the kernel (pixels)
DENSE = 1024
POOL = 3


class Parameters(Block):
    """dropout: after each dense layer."""

    dropout: float = Field(default=0.5, ge=0.0, lt=1.0)


class CASSwinburne(nn.Module):
    """(batch, band, y, x) normalised pixels to logits (batch,)."""

    def __init__(self, p: Parameters, shape: tuple[int, ...]) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        channels, size = shape[0], shape[1]
        for width, kernel in CONVOLUTIONS:
            layers += [
                nn.Conv2d(channels, width, kernel, padding=kernel // 2),
                nn.ReLU(),
                nn.MaxPool2d(POOL),
            ]
            channels, size = width, size // POOL
        self.features = nn.Sequential(*layers)
        self.head = nn.Sequential(
            nn.Flatten(),
            nn.Linear(channels * size * size, DENSE),
            nn.ReLU(),
            nn.Dropout(p.dropout),
            nn.Linear(DENSE, DENSE),
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
    """Network for stamps (band, y, x); three poolings must leave a pixel."""
    shape = only(shapes)
    check_smallest(shape, POOL ** len(CONVOLUTIONS))
    return CASSwinburne(parameters, shape)
