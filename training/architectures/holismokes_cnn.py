"""Plain CNN: three convolutions with large kernels, pooling between, three dense layers.

After the baseline of HOLISMOKES II and VI (Cañameras et al. 2020, arXiv:2004.13048; 2021,
arXiv:2107.07829), with fewer feature maps, batch normalisation, and a last pooling so that the
dense layers stay small.
"""

from __future__ import annotations

from typing import Literal

from jaxtyping import Float
from pydantic import Field, PositiveInt
from torch import Tensor, nn

from lenspipe.cutouts.base import Block
from training.architectures.layers import Shapes, check_size, only

INPUT: Literal["images"] = "images"


class Parameters(Block):
    """kernels, widths: side (pixels, odd) and feature maps of each convolution; dense: neurons."""

    kernels: tuple[PositiveInt, PositiveInt, PositiveInt] = (7, 5, 3)
    widths: tuple[PositiveInt, PositiveInt, PositiveInt] = (16, 32, 64)
    dense: tuple[PositiveInt, PositiveInt] = (64, 32)
    dropout: float = Field(default=0.3, ge=0.0, lt=1.0)


class HolismokesCNN(nn.Module):
    """(batch, band, y, x) normalised pixels to logits (batch,)."""

    def __init__(self, p: Parameters, shape: tuple[int, ...]) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        channels, size = shape[0], shape[1]
        for kernel, width in zip(p.kernels, p.widths, strict=True):
            layers += [
                nn.Conv2d(channels, width, kernel, padding="same", bias=False),
                nn.BatchNorm2d(width),
                nn.ReLU(),
                nn.MaxPool2d(2),
            ]
            channels, size = width, size // 2
        self.features = nn.Sequential(*layers)
        self.head = nn.Sequential(
            nn.Flatten(),
            nn.Dropout(p.dropout),
            nn.Linear(channels * size * size, p.dense[0]),
            nn.ReLU(),
            nn.Dropout(p.dropout),
            nn.Linear(*p.dense),
            nn.ReLU(),
            nn.Linear(p.dense[1], 1),
        )

    def forward(self, x: Float[Tensor, "b band y x"]) -> Float[Tensor, " b"]:
        """Logits."""
        logits: Tensor = self.head(self.features(x))
        return logits.squeeze(1)


def build(parameters: Parameters, shapes: Shapes) -> nn.Module:
    """Network for stamps (band, y, x)."""
    shape = only(shapes)
    check_size(shape, divisor=8, smallest=16)
    return HolismokesCNN(parameters, shape)
