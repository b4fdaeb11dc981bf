"""Shear along a random direction; areas, and so fluxes, stay."""

from __future__ import annotations

import math

import torch
from pydantic import Field
from torch import Generator, Tensor

from lenspipe.cutouts.base import Block
from training.augmentations import Images, Scales
from training.augmentations._draw import between, first
from training.augmentations._warp import rotation, shearing, warp


class Parameters(Block):
    """degrees: largest angle by which a line across the direction leans."""

    degrees: float = Field(default=5.0, ge=0.0, le=45.0)


STILL = Parameters(degrees=0.0)
KEEPS_FLUX = True


def apply(p: Parameters, images: Images, scales: Scales, generator: Generator) -> dict[str, Tensor]:
    """Each source by its own draw of angle and direction."""
    if not p.degrees:
        return dict(images)
    like = first(images)
    lean = torch.tan(between((len(like),), math.radians(p.degrees), like, generator))
    direction = between((len(like),), math.pi, like, generator)
    matrix = rotation(direction) @ shearing(lean) @ rotation(-direction)
    return warp(images, scales, matrix, torch.zeros(len(like), 2, device=like.device))
