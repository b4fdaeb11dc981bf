"""CMU DeepLens: five stages of three residual bottlenecks, ELU throughout.

Sources: Lanusse et al. 2018, arXiv:1703.02642; as in LEXACTUM (Magro et al. 2021,
arXiv:2106.01754, appendix A3), which initialises after Glorot, puts an ELU after every convolution
and pools 2×2 at the end, where the original takes He's weights and the mean of the whole map.
"""

from __future__ import annotations

from typing import Literal

from jaxtyping import Float
from torch import Tensor, nn

from lenspipe.cutouts.base import Block
from training.architectures.keras_layers import ELU, Bottleneck, glorot, norm2d
from training.architectures.layers import Shapes, check_smallest, only

INPUT: Literal["images"] = "images"
STEM = 32
WIDTHS = (32, 64, 128, 256, 512)  # feature maps of each stage; every stage but the first halves
BLOCKS = 3


class Parameters(Block):
    """None: the published network leaves nothing to choose."""


class CMUDeepLens(nn.Module):
    """(batch, band, y, x) normalised pixels to logits (batch,)."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        super().__init__()
        self.stem = nn.Conv2d(shape[0], STEM, 7, padding=3)
        self.elu = ELU()
        self.norm = norm2d(STEM)
        blocks: list[nn.Module] = []
        channels, size = STEM, shape[1]
        for stage, width in enumerate(WIDTHS):
            for block in range(BLOCKS):
                halve = stage > 0 and block == 0
                blocks.append(Bottleneck(channels, width, halve))
                channels, size = width, (size + 1) // 2 if halve else size
        self.blocks = nn.Sequential(*blocks)
        self.head = nn.Sequential(
            nn.AvgPool2d(2), nn.Flatten(), nn.Linear(channels * (size // 2) ** 2, 1)
        )
        glorot(self)

    def forward(self, x: Float[Tensor, "b band y x"]) -> Float[Tensor, " b"]:
        """Logits."""
        stem = self.norm(self.elu(self.stem(x)))
        logits: Tensor = self.head(self.blocks(stem))
        return logits.squeeze(1)


def build(parameters: Parameters, shapes: Shapes) -> nn.Module:  # noqa: ARG001 - none
    """Network for stamps (band, y, x); four halvings must leave two pixels."""
    shape = only(shapes)
    check_smallest(shape, 2 ** (len(WIDTHS) - 1) + 1)
    return CMUDeepLens(shape)
