"""ResNet-18: four stages of two basic blocks, with a stem for small stamps or the published one.

Sources: He et al. 2016, arXiv:1512.03385 (table 1, figure 5 left); Zhang 2019, arXiv:1904.11486
(anti-aliasing, equations 3 and 4).
"""

from __future__ import annotations

from typing import Literal

from jaxtyping import Float
from pydantic import Field, PositiveInt, model_validator
from torch import Tensor, nn

from lenspipe.cutouts.base import Block
from training.architectures.layers import BlurPool, Shapes, check_smallest, he_normal, only

INPUT: Literal["images"] = "images"


class Parameters(Block):
    """widths, blocks: feature maps and blocks of each stage; every stage but the first halves.

    stem: `small` is 3×3 and keeps the size, `published` is 7×7 with a stride of 2 and a max pooling
    of 2. anti_aliased: every halving blurs before it takes every second pixel.
    """

    widths: tuple[PositiveInt, ...] = Field(default=(64, 128, 256, 512), min_length=1)
    blocks: tuple[PositiveInt, ...] = Field(default=(2, 2, 2, 2), min_length=1)
    stem: Literal["small", "published"] = "small"
    anti_aliased: bool = False
    dropout: float = Field(default=0.0, ge=0.0, lt=1.0)

    @model_validator(mode="after")
    def _as_many(self) -> Parameters:
        if len(self.widths) != len(self.blocks):
            raise ValueError("expected as many blocks as widths")
        return self

    @property
    def halvings(self) -> int:
        """How often the image is halved."""
        return len(self.widths) - 1 + (2 if self.stem == "published" else 0)


class BasicBlock(nn.Module):
    """relu(x + bn(conv(relu(bn(conv(x)))))), with a 1×1 convolution where width or size changes.

    stride: 1, or 2, which halves; an anti-aliased block halves by a blur between its convolutions,
    and one before the short cut's.
    """

    def __init__(self, channels: int, width: int, stride: int, anti_aliased: bool) -> None:
        super().__init__()
        blurs = anti_aliased and stride == 2
        step = 1 if blurs else stride
        self.branch = nn.Sequential(
            nn.Conv2d(channels, width, 3, step, padding=1, bias=False),
            nn.BatchNorm2d(width),
            nn.ReLU(),
            BlurPool(width) if blurs else nn.Identity(),
            nn.Conv2d(width, width, 3, padding=1, bias=False),
            nn.BatchNorm2d(width),
        )
        self.skip = nn.Sequential()
        if stride != 1 or channels != width:
            self.skip = nn.Sequential(
                BlurPool(channels) if blurs else nn.Identity(),
                nn.Conv2d(channels, width, 1, step, bias=False),
                nn.BatchNorm2d(width),
            )
        self.relu = nn.ReLU()

    def forward(self, x: Float[Tensor, "b c y x"]) -> Float[Tensor, "b w v u"]:
        """Of the same size, or of half of it, rounded up."""
        total: Tensor = self.relu(self.skip(x) + self.branch(x))
        return total


class ResNet18(nn.Module):
    """(batch, band, y, x) normalised pixels to logits (batch,)."""

    def __init__(self, p: Parameters, bands: int) -> None:
        super().__init__()
        layers = _stem(p, bands)
        channels = p.widths[0]
        for stage, (width, blocks) in enumerate(zip(p.widths, p.blocks, strict=True)):
            for block in range(blocks):
                stride = 2 if stage > 0 and block == 0 else 1
                layers.append(BasicBlock(channels, width, stride, p.anti_aliased))
                channels = width
        self.features = nn.Sequential(*layers)
        self.head = nn.Sequential(nn.Dropout(p.dropout), nn.Linear(channels, 1))
        he_normal(self)

    def forward(self, x: Float[Tensor, "b band y x"]) -> Float[Tensor, " b"]:
        """Logits."""
        pooled = self.features(x).mean(dim=(2, 3))
        logits: Tensor = self.head(pooled)
        return logits.squeeze(1)


def build(parameters: Parameters, shapes: Shapes) -> nn.Module:
    """Network for stamps (band, y, x) of any size of which the halvings leave a pixel: with the
    defaults 8 or more, with the published stem 32 or more."""
    shape = only(shapes)
    check_smallest(shape, 2**parameters.halvings)
    return ResNet18(parameters, shape[0])


def _stem(p: Parameters, bands: int) -> list[nn.Module]:
    width = p.widths[0]
    if p.stem == "small":
        first = nn.Conv2d(bands, width, 3, padding=1, bias=False)
        return [first, nn.BatchNorm2d(width), nn.ReLU()]
    first = nn.Conv2d(bands, width, 7, 1 if p.anti_aliased else 2, padding=3, bias=False)
    halving = [BlurPool(width)] if p.anti_aliased else []
    pooling: list[nn.Module] = [nn.MaxPool2d(3, 2, padding=1)]
    if p.anti_aliased:
        pooling = [nn.MaxPool2d(3, 1, padding=1), BlurPool(width)]
    return [first, nn.BatchNorm2d(width), nn.ReLU(), *halving, *pooling]
