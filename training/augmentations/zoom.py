"""Change of size at the same surface brightness: a source nearer or larger, its noise as it was."""

from __future__ import annotations

import math

import torch
from pydantic import Field
from torch import Generator, Tensor

from lenspipe.cutouts.base import Block
from training.augmentations import Images, Scales
from training.augmentations._draw import between, first
from training.augmentations._warp import scaling, warp


class Parameters(Block):
    """largest: largest factor, and one over the smallest; uniform in its logarithm. The PSF is
    stretched with the rest, so it stays near 1."""

    largest: float = Field(default=1.1, ge=1.0, le=4.0)


STILL = Parameters(largest=1.0)
KEEPS_FLUX = False


def apply(p: Parameters, images: Images, scales: Scales, generator: Generator) -> dict[str, Tensor]:
    """Each source by its own draw."""
    if p.largest == 1.0:
        return dict(images)
    like = first(images)
    # The map goes from the new stamp to the old, so a larger source has a smaller factor here.
    factor = torch.exp(between((len(like),), math.log(p.largest), like, generator))
    still = torch.zeros(len(like), 2, device=like.device)
    return warp(images, scales, scaling(1.0 / factor, 1.0 / factor), still)
