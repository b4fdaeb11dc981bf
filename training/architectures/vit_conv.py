"""Small vision transformer whose patches are made by convolutions.

Sources: Xiao et al. 2021, arXiv:2106.14881 (convolutional stem, section 3.1); Dosovitskiy et al.
2021, arXiv:2010.11929 (transformer, equations 1 to 4); Vaswani et al. 2017, arXiv:1706.03762
(attention, equation 1; sines and cosines, section 3.5), here in two dimensions.
"""

from __future__ import annotations

from typing import Literal

import torch
from jaxtyping import Float
from pydantic import Field, PositiveInt, model_validator
from torch import Tensor, nn
from torch.nn import functional

from lenspipe.cutouts.base import Block
from training.architectures.layers import DropPath, Shapes, check_smallest, only

INPUT: Literal["images"] = "images"
LONGEST = 10_000.0  # largest wavelength of the position's sines, in 2π tokens


class Parameters(Block):
    """stem: feature maps of the 3×3 convolutions that make the tokens, each halving.

    dim: length of a token; depth, heads: of the transformer; mlp: hidden neurons as a multiple of
    dim. pool: the mean of the tokens, or a token of its own for the class. drop_path: rate at the
    last block, growing from nought.
    """

    stem: tuple[PositiveInt, ...] = Field(default=(32, 64, 96), min_length=1)
    dim: PositiveInt = 128
    depth: PositiveInt = 5
    heads: PositiveInt = 4
    mlp: PositiveInt = 3
    pool: Literal["mean", "class"] = "mean"
    dropout: float = Field(default=0.1, ge=0.0, lt=1.0)
    drop_path: float = Field(default=0.1, ge=0.0, lt=1.0)

    @model_validator(mode="after")
    def _divides(self) -> Parameters:
        if self.dim % self.heads or self.dim % 4:
            raise ValueError("expected dim as a multiple of heads and of 4")
        return self


def positions(side: int, dim: int) -> Float[Tensor, "token dim"]:
    """Sines and cosines of each token's row, then of its column: a quarter of `dim` each."""
    quarter = dim // 4
    rates = LONGEST ** -(torch.arange(quarter, dtype=torch.float64) / quarter)
    angles = torch.arange(side, dtype=torch.float64)[:, None] * rates
    line = torch.cat([angles.sin(), angles.cos()], dim=1)  # (side, dim / 2)
    rows = line[:, None].expand(side, side, -1)
    columns = line[None].expand(side, side, -1)
    return torch.cat([rows, columns], dim=2).flatten(0, 1).float()


class Attention(nn.Module):
    """Every token looks at all of them, with several heads."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(dim, 3 * dim)
        self.out = nn.Linear(dim, dim)

    def forward(self, x: Float[Tensor, "b token dim"]) -> Float[Tensor, "b token dim"]:
        """Of the same shape."""
        _, tokens, dim = x.shape
        parts = self.qkv(x).reshape(-1, tokens, 3, self.heads, dim // self.heads)
        query, key, value = parts.permute(2, 0, 3, 1, 4)  # (batch, head, token, dim / heads) each
        seen = functional.scaled_dot_product_attention(query, key, value)
        mixed: Tensor = self.out(seen.transpose(1, 2).reshape(-1, tokens, dim))
        return mixed


class Encoder(nn.Module):
    """Pre-norm block: x + attention(norm(x)), then x + mlp(norm(x))."""

    def __init__(self, p: Parameters, drop_path: float) -> None:
        super().__init__()
        inner = p.mlp * p.dim
        self.attend = nn.Sequential(
            nn.LayerNorm(p.dim), Attention(p.dim, p.heads), nn.Dropout(p.dropout)
        )
        self.think = nn.Sequential(
            nn.LayerNorm(p.dim),
            nn.Linear(p.dim, inner),
            nn.GELU(),
            nn.Linear(inner, p.dim),
            nn.Dropout(p.dropout),
        )
        self.drop = DropPath(drop_path)

    def forward(self, x: Float[Tensor, "b token dim"]) -> Float[Tensor, "b token dim"]:
        """Of the same shape."""
        x = x + self.drop(self.attend(x))
        total: Tensor = x + self.drop(self.think(x))
        return total


class ViTConv(nn.Module):
    """(batch, band, y, x) normalised pixels to logits (batch,)."""

    positions: Tensor

    def __init__(self, p: Parameters, bands: int, side: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        channels = bands
        for width in p.stem:
            layers += [
                nn.Conv2d(channels, width, 3, 2, padding=1, bias=False),
                nn.BatchNorm2d(width),
                nn.ReLU(),
            ]
            channels = width
        self.stem = nn.Sequential(*layers, nn.Conv2d(channels, p.dim, 1))
        # Not learnt and not kept: weights fit a stamp of another size too.
        self.register_buffer("positions", positions(side, p.dim), persistent=False)
        self.token = nn.Parameter(torch.zeros(1, 1, p.dim)) if p.pool == "class" else None
        rates = [p.drop_path * block / max(1, p.depth - 1) for block in range(p.depth)]
        self.encoder = nn.Sequential(*(Encoder(p, rate) for rate in rates), nn.LayerNorm(p.dim))
        self.head = nn.Sequential(nn.Dropout(p.dropout), nn.Linear(p.dim, 1))

    def forward(self, x: Float[Tensor, "b band y x"]) -> Float[Tensor, " b"]:
        """Logits."""
        tokens = self.stem(x).flatten(2).transpose(1, 2) + self.positions  # (batch, token, dim)
        if self.token is not None:
            tokens = torch.cat([self.token.expand(x.shape[0], -1, -1), tokens], dim=1)
        encoded = self.encoder(tokens)
        pooled = encoded.mean(dim=1) if self.token is None else encoded[:, 0]
        logits: Tensor = self.head(pooled)
        return logits.squeeze(1)


def build(parameters: Parameters, shapes: Shapes) -> nn.Module:
    """Network for stamps (band, y, x) of any size that gives two by two tokens or more: with the
    defaults, three halvings rounded up, 9 pixels or more."""
    shape = only(shapes)
    halving: int = 2 ** len(parameters.stem)
    check_smallest(shape, halving + 1)
    return ViTConv(parameters, shape[0], side=-(-shape[1] // halving))
