"""LASTRO EPFL: eight small convolutions without padding, three wide dense layers.

Sources: Schaefer et al. 2018, arXiv:1705.07132; as in LEXACTUM (Magro et al. 2021,
arXiv:2106.01754, appendix A2).
"""

from __future__ import annotations

from typing import Literal

from jaxtyping import Float
from pydantic import Field
from torch import Tensor, nn

from lenspipe.cutouts.base import Block
from training.architectures.keras_layers import glorot, norm1d, norm2d
from training.architectures.layers import Shapes, check_smallest, only

INPUT: Literal["images"] = "images"
PAIRS = ((16, 4), (32, 3), (64, 3))  # feature maps, side of the first kernel (pixels); second: 3
LAST = 128
DENSE = 1024


class Parameters(Block):
    """dropout: after the third pair, each of the last convolutions, and the first dense layers."""

    dropout: float = Field(default=0.1, ge=0.0, lt=1.0)


class LASTROEPFL(nn.Module):
    """(batch, band, y, x) normalised pixels to logits (batch,)."""

    def __init__(self, p: Parameters, shape: tuple[int, ...]) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        channels, size = shape[0], shape[1]
        for width, kernel in PAIRS:
            layers += _pair(channels, width, kernel)
            channels, size = width, (size - kernel - 1) // 2
        self.features = nn.Sequential(
            *layers,
            nn.Dropout(p.dropout),
            nn.Conv2d(channels, LAST, 3),
            nn.ReLU(),
            nn.Dropout(p.dropout),
            nn.Conv2d(LAST, LAST, 3),
            nn.ReLU(),
            norm2d(LAST),
            nn.Dropout(p.dropout),
        )
        self.head = nn.Sequential(
            nn.Flatten(),
            nn.Linear(LAST * (size - 4) ** 2, DENSE),
            nn.ReLU(),
            nn.Dropout(p.dropout),
            nn.Linear(DENSE, DENSE),
            nn.ReLU(),
            nn.Dropout(p.dropout),
            nn.Linear(DENSE, DENSE),
            nn.ReLU(),
            norm1d(DENSE),
            nn.Linear(DENSE, 1),
        )
        glorot(self)

    def forward(self, x: Float[Tensor, "b band y x"]) -> Float[Tensor, " b"]:
        """Logits."""
        logits: Tensor = self.head(self.features(x))
        return logits.squeeze(1)


def build(parameters: Parameters, shapes: Shapes) -> nn.Module:
    """Network for stamps (band, y, x); what is left at the end must be a pixel."""
    shape = only(shapes)
    check_smallest(shape, _smallest())
    return LASTROEPFL(parameters, shape)


def _pair(channels: int, width: int, kernel: int) -> list[nn.Module]:
    return [
        nn.Conv2d(channels, width, kernel),
        nn.ReLU(),
        nn.Conv2d(width, width, 3),
        nn.ReLU(),
        nn.MaxPool2d(2),
        norm2d(width),
    ]


def _smallest() -> int:
    size = 1 + 2 + 2
    for _, kernel in reversed(PAIRS):
        size = 2 * size + 2 + kernel - 1
    return size
