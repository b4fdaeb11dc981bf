"""Rotation by any angle: lenses have no preferred one. Interpolates, so noise is correlated."""

from __future__ import annotations

import math

import torch
from pydantic import Field
from torch import Generator, Tensor

from lenspipe.cutouts.base import Block
from training.augmentations import Images, Scales
from training.augmentations._draw import between, first
from training.augmentations._warp import rotation, warp


class Parameters(Block):
    """degrees: largest angle, to either side."""

    degrees: float = Field(default=180.0, ge=0.0, le=180.0)


STILL = Parameters(degrees=0.0)
KEEPS_FLUX = True


def apply(p: Parameters, images: Images, scales: Scales, generator: Generator) -> dict[str, Tensor]:
    """Each source by its own draw."""
    if not p.degrees:
        return dict(images)
    like = first(images)
    angle = between((len(like),), math.radians(p.degrees), like, generator)
    return warp(images, scales, rotation(angle), torch.zeros(len(like), 2, device=like.device))
