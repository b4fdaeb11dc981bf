"""Layers that more than one architecture is made of, and the checks of inputs and their sizes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from lenspipe.errors import InputError

Shapes = Mapping[str, tuple[int, ...]]
"""Input name -> shape without the batch: (band, y, x) or (feature,), in the order of `forward`."""


@runtime_checkable
class Foldable(Protocol):
    """A layer that is an ordinary one as soon as its weights are known: what is exported is that,
    so that a session need not work it out for every batch, and weights can be quantised."""

    def folded(self) -> nn.Module:
        """Layers that give the same in `eval`."""
        ...


def only(shapes: Shapes) -> tuple[int, ...]:
    """The shape of the one input that there is; InputError where there are more."""
    if len(shapes) != 1:
        found = ", ".join(shapes) or "none"
        raise InputError("stamps", "one input, which is all that this architecture takes", found)
    return next(iter(shapes.values()))


def check_size(shape: tuple[int, ...], divisor: int, smallest: int) -> None:
    """InputError unless `shape` is (band, y, x) of square stamps that halve without remainder."""
    check_smallest(shape, 1)
    size = shape[1]
    if size % divisor or size < smallest:
        first = -(-smallest // divisor) * divisor
        fitting = ", ".join(str(first + k * divisor) for k in range(3))
        raise InputError(
            "stamps.size_pixels",
            f"a multiple of {divisor} from {first} up ({fitting} …)",
            size,
        )


def check_smallest(shape: tuple[int, ...], smallest: int, name: str = "") -> None:
    """InputError unless `shape` is (band, y, x) of square stamps of so many pixels or more.

    name: of the input, where there may be several.
    """
    field = f"stamps[{name}]" if name else "stamps"
    if len(shape) != 3 or shape[1] != shape[2]:
        raise InputError(field, "square images (band, y, x)", shape)
    if shape[1] < smallest:
        raise InputError(f"{field}.size_pixels", f"{smallest} or more", shape[1])


def he_normal(network: nn.Module) -> None:
    """Normal weights of variance 2 / fan out in every convolution (He et al. 2015,
    arXiv:1502.01852, equation 14), and zero biases. Of a depthwise one the fan is its group's."""
    for layer in network.modules():
        if isinstance(layer, nn.Conv2d):
            fan_out = layer.weight[:, 0].numel() / layer.groups
            nn.init.normal_(layer.weight, std=(2.0 / fan_out) ** 0.5)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)


class DropPath(nn.Module):
    """Leave a residual branch out for a fraction `rate` of the rows while training.

    Source: Huang et al. 2016 (stochastic depth), arXiv:1603.09382.
    """

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = rate

    def forward(self, x: Float[Tensor, "b ..."]) -> Float[Tensor, "b ..."]:
        """The branch, scaled so that its expectation stays; in `eval` as it is."""
        if not self.training or not self.rate:
            return x
        kept = torch.rand(x.shape[0], *[1] * (x.ndim - 1), device=x.device) >= self.rate
        return x * kept / (1.0 - self.rate)


class BlurPool(nn.Module):
    """Halve an image without aliasing: binomial filter [1 2 1]², then every second pixel.

    Source: Zhang 2019, arXiv:1904.11486.
    """

    kernel: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        row = torch.tensor([1.0, 2.0, 1.0])
        kernel = (row[:, None] * row[None, :] / 16.0).expand(channels, 1, 3, 3).clone()
        self.register_buffer("kernel", kernel, persistent=False)
        self.channels = channels

    def forward(self, x: Float[Tensor, "b c y x"]) -> Float[Tensor, "b c y/2 x/2"]:
        """Filter and subsample."""
        return functional.conv2d(x, self.kernel, stride=2, padding=1, groups=self.channels)
