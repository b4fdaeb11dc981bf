"""Narrow residual network: pre-activation blocks, halvings anti-aliased or not, one mean at last.

Sources: He et al. 2016, arXiv:1603.05027 (pre-activation); Zhang 2019, arXiv:1904.11486
(anti-aliasing); its use on lenses: Lanusse et al. 2018 (CMU DeepLens), arXiv:1703.02642.
"""

from __future__ import annotations

from typing import Literal

from jaxtyping import Float
from pydantic import Field, PositiveInt, model_validator
from torch import Tensor, nn
from torch.nn import functional

from lenspipe.cutouts.base import Block
from training.architectures.layers import BlurPool, Shapes, check_size, only

INPUT: Literal["images"] = "images"


class Parameters(Block):
    """stem: feature maps of the first convolution; widths, blocks: of a halving and after.

    anti_aliased: a halving is a blur and every second pixel; else a stride of the first block's
    convolution and short cut.
    """

    stem: PositiveInt = 16
    widths: tuple[PositiveInt, ...] = Field(default=(24, 48, 96), min_length=1)
    blocks: tuple[PositiveInt, ...] = Field(default=(1, 2, 2), min_length=1)
    dropout: float = Field(default=0.2, ge=0.0, lt=1.0)
    anti_aliased: bool = True

    @model_validator(mode="after")
    def _as_many(self) -> Parameters:
        if len(self.widths) != len(self.blocks):
            raise ValueError("expected as many blocks as widths")
        return self


class ResidualBlock(nn.Module):
    """x + conv(relu(bn(conv(relu(bn(x)))))), with a 1×1 convolution where width or size changes."""

    def __init__(self, channels: int, width: int, stride: int = 1) -> None:
        super().__init__()
        self.norm1 = nn.BatchNorm2d(channels)
        self.conv1 = nn.Conv2d(channels, width, 3, stride, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        same = channels == width and stride == 1
        self.skip = nn.Identity() if same else nn.Conv2d(channels, width, 1, stride, bias=False)

    def forward(self, x: Float[Tensor, "b c y x"]) -> Float[Tensor, "b w v u"]:
        """The block's output, of the same size or of half of it."""
        out = self.conv1(functional.relu(self.norm1(x)))
        out = self.conv2(functional.relu(self.norm2(out)))
        total: Tensor = self.skip(x) + out
        return total


class NarrowResNet(nn.Module):
    """(batch, band, y, x) normalised pixels to logits (batch,)."""

    def __init__(self, p: Parameters, bands: int) -> None:
        super().__init__()
        layers: list[nn.Module] = [nn.Conv2d(bands, p.stem, 5, padding=2, bias=False)]
        channels = p.stem
        for width, blocks in zip(p.widths, p.blocks, strict=True):
            if p.anti_aliased:
                layers.append(BlurPool(channels))
            for block in range(blocks):
                stride = 2 if block == 0 and not p.anti_aliased else 1
                layers.append(ResidualBlock(channels, width, stride))
                channels = width
        layers += [nn.BatchNorm2d(channels), nn.ReLU()]
        self.features = nn.Sequential(*layers)
        self.head = nn.Sequential(nn.Dropout(p.dropout), nn.Linear(channels, 1))

    def forward(self, x: Float[Tensor, "b band y x"]) -> Float[Tensor, " b"]:
        """Logits."""
        pooled = self.features(x).mean(dim=(2, 3))
        logits: Tensor = self.head(pooled)
        return logits.squeeze(1)


def build(parameters: Parameters, shapes: Shapes) -> nn.Module:
    """Network for stamps (band, y, x)."""
    shape = only(shapes)
    divisor: int = 2 ** len(parameters.widths)
    check_size(shape, divisor, smallest=2 * divisor)
    return NarrowResNet(parameters, shape[0])
