"""Layers that more than one architecture is made of, and the checks of inputs and their sizes."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from lenspipe.errors import InputError

Shapes = Mapping[str, tuple[int, ...]]
"""Input name -> shape without the batch: (band, y, x) or (feature,), in the order of `forward`."""


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


def check_smallest(shape: tuple[int, ...], smallest: int) -> None:
    """InputError unless `shape` is (band, y, x) of square stamps of so many pixels or more."""
    if len(shape) != 3 or shape[1] != shape[2]:
        raise InputError("stamps", "square images (band, y, x)", shape)
    if shape[1] < smallest:
        raise InputError("stamps.size_pixels", f"{smallest} or more", shape[1])


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
