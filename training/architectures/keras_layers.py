"""Keras' defaults in torch, and the residual block that two networks of LEXACTUM share.

Source: Magro et al. 2021 (LEXACTUM), arXiv:2106.01754, whose networks were made
with Keras.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

EPSILON = 1e-3
MOMENTUM = 0.01  # Keras' 0.99 is what it keeps of the moving mean, torch's is what it adds


def norm2d(channels: int) -> nn.BatchNorm2d:
    """Batch normalisation of feature maps with Keras' constants."""
    return nn.BatchNorm2d(channels, eps=EPSILON, momentum=MOMENTUM)


def norm1d(neurons: int) -> nn.BatchNorm1d:
    """Batch normalisation of neurons with Keras' constants."""
    return nn.BatchNorm1d(neurons, eps=EPSILON, momentum=MOMENTUM)


def glorot(network: nn.Module) -> None:
    """Glorot's uniform weights and zero biases in every convolution and dense layer."""
    for layer in network.modules():
        if isinstance(layer, nn.Conv2d | nn.Linear):
            nn.init.xavier_uniform_(layer.weight)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)


class ELU(nn.Module):
    """max(x, exp(min(x, 0)) - 1), equation 15 of Clevert et al. 2016, arXiv:1511.07289.

    In `eval` it is written out, and so it is exported: ONNX Runtime's CPU kernel of `Elu` takes
    three times as long as these four operators, whose `Exp` is vectorised.
    """

    def forward(self, x: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
        """Of the same shape."""
        if self.training:
            return functional.elu(x)
        return torch.maximum(x, torch.exp(torch.clamp(x, max=0.0)) - 1.0)


class Bottleneck(nn.Module):
    """Pre-activation block 1×1 (inner maps), 3×3, 1×1 (`width` maps) beside a short cut.

    As LEXACTUM has it: an ELU follows every convolution too, the last one and the projection
    included, where Lanusse et al. 2018 have none. A block that halves projects what the first
    normalisation and ELU made of the input; one that does not adds the input itself.
    """

    def __init__(self, channels: int, width: int, halve: bool) -> None:
        super().__init__()
        inner = width // 2
        self.norm1 = norm2d(channels)
        self.conv1 = nn.Conv2d(channels, inner, 1, stride=2 if halve else 1)
        self.norm2 = norm2d(inner)
        self.conv2 = nn.Conv2d(inner, inner, 3, padding=1)
        self.norm3 = norm2d(inner)
        self.conv3 = nn.Conv2d(inner, width, 1)
        self.project = nn.Conv2d(channels, width, 1, stride=2) if halve else None
        self.elu = ELU()

    def forward(self, x: Float[Tensor, "b c y x"]) -> Float[Tensor, "b w v u"]:
        """Of the same size, or of half of it, rounded up."""
        elu = self.elu
        first = elu(self.norm1(x))
        short = x if self.project is None else elu(self.project(first))
        out = elu(self.conv1(first))
        out = elu(self.conv2(elu(self.norm2(out))))
        total: Tensor = short + elu(self.conv3(elu(self.norm3(out))))
        return total
