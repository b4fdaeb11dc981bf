"""WSI-Net: two residual bottlenecks, two convolutions, a dense layer without activation.

Sources: Ni et al. 2019, MLMI, p. 36 (breast histology); as in LEXACTUM (Magro et al. 2021,
arXiv:2106.01754, appendix A4), whose code has 128 neurons without activation in the dense layer,
where its paper says 256.
"""

from __future__ import annotations

from typing import Literal

from jaxtyping import Float
from torch import Tensor, nn

from lenspipe.cutouts.base import Block
from training.architectures.keras_layers import ELU, Bottleneck, glorot, norm2d
from training.architectures.layers import Shapes, check_smallest, only

INPUT: Literal["images"] = "images"
MAPS = 32
DENSE = 128


class Parameters(Block):
    """None: the published network leaves nothing to choose."""


class WSINet(nn.Module):
    """(batch, band, y, x) normalised pixels to logits (batch,)."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        super().__init__()
        side = (shape[1] + 1) // 2 // 2
        self.features = nn.Sequential(
            nn.Conv2d(shape[0], MAPS, 7, padding=3),
            ELU(),
            Bottleneck(MAPS, MAPS, halve=False),
            Bottleneck(MAPS, 2 * MAPS, halve=True),
            *_classifier(2 * MAPS, 1),
            *_classifier(MAPS, 5),
            nn.MaxPool2d(2),
        )
        self.head = nn.Sequential(
            nn.Flatten(), nn.Linear(MAPS * side * side, DENSE), nn.Linear(DENSE, 1)
        )
        glorot(self)

    def forward(self, x: Float[Tensor, "b band y x"]) -> Float[Tensor, " b"]:
        """Logits."""
        logits: Tensor = self.head(self.features(x))
        return logits.squeeze(1)


def build(parameters: Parameters, shapes: Shapes) -> nn.Module:  # noqa: ARG001 - none
    """Network for stamps (band, y, x); a halving and a pooling must leave a pixel."""
    shape = only(shapes)
    check_smallest(shape, 3)
    return WSINet(shape)


def _classifier(channels: int, kernel: int) -> list[nn.Module]:
    convolution = nn.Conv2d(channels, MAPS, kernel, padding=kernel // 2)
    return [convolution, ELU(), norm2d(MAPS), nn.ReLU()]
