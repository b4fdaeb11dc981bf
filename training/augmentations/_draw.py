"""Draws of one number per source, on the device of the images."""

from __future__ import annotations

import torch
from torch import Generator, Tensor

from training.augmentations import Images


def first(images: Images) -> Tensor:
    """Any of the inputs: they agree on the number of sources and the device."""
    return next(iter(images.values()))


def between(shape: tuple[int, ...], largest: float, like: Tensor, generator: Generator) -> Tensor:
    """Uniform between -largest and +largest."""
    drawn = torch.rand(shape, generator=generator, device=like.device)
    return largest * (2.0 * drawn - 1.0)
