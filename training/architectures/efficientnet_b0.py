"""EfficientNet-B0 with a trunk for each input: features of several resolutions joined at the end.

VIS at 0.1″ and NISP at 0.3″ each go through a network of their own, pixels as they are; a hidden
layer sees both, as in HOLISMOKES XV (Melo et al. 2025, arXiv:2411.18694), where merged branches
found more than any one instrument or a stack on one grid. With one input it is the published
network.

Sources: Tan & Le 2019, arXiv:1905.11946 (table 1; widths and depths: equation 3); Sandler et al.
2018, arXiv:1801.04381 (inverted bottleneck); Hu et al. 2018, arXiv:1709.01507 (squeeze and
excitation, equations 2 to 4).
"""

from __future__ import annotations

import math
from typing import Literal, NamedTuple

import torch
from jaxtyping import Float
from pydantic import Field, PositiveFloat, PositiveInt
from torch import Tensor, nn

from lenspipe.cutouts.base import Block
from training.architectures.layers import DropPath, Shapes, check_smallest, he_normal

INPUT: Literal["images"] = "images"
STEM, LAST = 32, 1280


class Stage(NamedTuple):
    """Expansion, feature maps, blocks, stride of the first block, side of the kernel."""

    expand: int
    width: int
    blocks: int
    stride: int
    kernel: int


STAGES = (  # table 1, stages 2 to 8
    Stage(1, 16, 1, 1, 3),
    Stage(6, 24, 2, 2, 3),
    Stage(6, 40, 2, 2, 5),
    Stage(6, 80, 3, 2, 3),
    Stage(6, 112, 3, 1, 5),
    Stage(6, 192, 4, 2, 5),
    Stage(6, 320, 1, 1, 3),
)


class Parameters(Block):
    """width, depth: multiples of B0's feature maps and blocks, 1 is B0.

    stem_stride: 2 as published, 1 for small stamps. joint: neurons that see the features of all
    inputs, where there are several. drop_path: rate at the last block, growing from nought.
    """

    width: PositiveFloat = 1.0
    depth: PositiveFloat = 1.0
    stem_stride: Literal[1, 2] = 2
    joint: PositiveInt = 128
    dropout: float = Field(default=0.2, ge=0.0, lt=1.0)
    drop_path: float = Field(default=0.2, ge=0.0, lt=1.0)

    def maps(self, published: int) -> int:
        """B0's feature maps times the width: the nearest multiple of 8, no less than 0.9 of it."""
        wanted = self.width * published
        rounded = max(8, int(wanted + 4) // 8 * 8)
        return rounded + 8 if rounded < 0.9 * wanted else rounded

    def blocks(self, published: int) -> int:
        """B0's blocks times the depth, rounded up."""
        return math.ceil(self.depth * published)

    @property
    def smallest(self) -> int:
        """Smallest stamp (pixels): stem and stages must leave one."""
        return self.stem_stride * math.prod(stage.stride for stage in STAGES)


class SqueezeExcitation(nn.Module):
    """Scale each map by a number in 0–1 that the means of all maps give."""

    def __init__(self, channels: int, squeezed: int) -> None:
        super().__init__()
        self.gate = nn.Sequential(
            nn.Conv2d(channels, squeezed, 1),
            nn.SiLU(),
            nn.Conv2d(squeezed, channels, 1),
            nn.Sigmoid(),
        )

    def forward(self, x: Float[Tensor, "b c y x"]) -> Float[Tensor, "b c y x"]:
        """Of the same size."""
        scaled: Tensor = x * self.gate(x.mean(dim=(2, 3), keepdim=True))
        return scaled


class MBConv(nn.Module):
    """Inverted bottleneck: 1×1 expansion, depthwise convolution, squeeze and excitation, 1×1."""

    def __init__(self, channels: int, width: int, stage: Stage, stride: int, drop: float) -> None:
        super().__init__()
        inner = channels * stage.expand
        layers: list[nn.Module] = []
        if inner != channels:
            layers += _convolution(channels, inner, 1)
        layers += [
            *_convolution(inner, inner, stage.kernel, stride, groups=inner),
            SqueezeExcitation(inner, max(1, channels // 4)),
            nn.Conv2d(inner, width, 1, bias=False),
            nn.BatchNorm2d(width),
        ]
        self.residual = stride == 1 and channels == width
        if self.residual:
            layers.append(DropPath(drop))
        self.layers = nn.Sequential(*layers)

    def forward(self, x: Float[Tensor, "b c y x"]) -> Float[Tensor, "b w v u"]:
        """Of the same size, or of half of it, rounded up."""
        out: Tensor = self.layers(x)
        return x + out if self.residual else out


class Trunk(nn.Module):
    """One input's stem, blocks and last convolution; its maps as their means."""

    def __init__(self, p: Parameters, bands: int) -> None:
        super().__init__()
        channels = p.maps(STEM)
        layers = _convolution(bands, channels, 3, p.stem_stride)
        total = sum(p.blocks(stage.blocks) for stage in STAGES)
        done = 0
        for stage in STAGES:
            width = p.maps(stage.width)
            for block in range(p.blocks(stage.blocks)):
                stride = stage.stride if block == 0 else 1
                layers.append(MBConv(channels, width, stage, stride, p.drop_path * done / total))
                channels, done = width, done + 1
        self.features = p.maps(LAST)
        self.layers = nn.Sequential(*layers, *_convolution(channels, self.features, 1))

    def forward(self, x: Float[Tensor, "b band y x"]) -> Float[Tensor, "b f"]:
        """Features."""
        pooled: Tensor = self.layers(x).mean(dim=(2, 3))
        return pooled


class EfficientNet(nn.Module):
    """(batch, band, y, x) normalised pixels of each input to logits (batch,)."""

    def __init__(self, p: Parameters, bands: tuple[int, ...]) -> None:
        super().__init__()
        self.trunks = nn.ModuleList([Trunk(p, count) for count in bands])
        features = p.maps(LAST) * len(bands)
        layers: list[nn.Module] = [nn.Dropout(p.dropout)]
        if len(bands) > 1:
            layers += [nn.Linear(features, p.joint), nn.SiLU(), nn.Dropout(p.dropout)]
            features = p.joint
        self.head = nn.Sequential(*layers, nn.Linear(features, 1))
        he_normal(self)

    def forward(self, *images: Float[Tensor, "b band y x"]) -> Float[Tensor, " b"]:
        """Logits."""
        features = [trunk(x) for trunk, x in zip(self.trunks, images, strict=True)]
        logits: Tensor = self.head(torch.cat(features, dim=1))
        return logits.squeeze(1)


def build(parameters: Parameters, shapes: Shapes) -> nn.Module:
    """Network for one input or several, each (band, y, x) of any size of which the halvings leave a
    pixel: 32 or more, with `stem_stride` 1 16 or more."""
    for name, shape in shapes.items():
        check_smallest(shape, parameters.smallest, name)
    return EfficientNet(parameters, tuple(shape[0] for shape in shapes.values()))


def _convolution(
    channels: int, width: int, kernel: int, stride: int = 1, groups: int = 1
) -> list[nn.Module]:
    padding = kernel // 2
    layer = nn.Conv2d(channels, width, kernel, stride, padding, groups=groups, bias=False)
    return [layer, nn.BatchNorm2d(width), nn.SiLU()]
