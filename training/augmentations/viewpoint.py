"""Random viewpoints: mirror, rotation, zoom, shear and shift in one interpolation.

Source: Dieleman, Willett & Dambre 2015, arXiv:1503.07077, section 7.2: rotation by any angle,
translation, zoom uniform in its logarithm up to 1.3, mirrored half of the time, all in one affine
map so that the stamp is resampled once.
"""

from __future__ import annotations

import math

import torch
from pydantic import Field, NonNegativeFloat
from torch import Generator, Tensor

from lenspipe.cutouts.base import Block
from training.augmentations import Images, Scales
from training.augmentations._draw import between, first
from training.augmentations._warp import rotation, scaling, shearing, warp


class Parameters(Block):
    """mirror: half of the time. degrees, shear_degrees: largest angles. zoom: largest factor, and
    one over the smallest. shift_arcsec: largest shift in x and in y."""

    mirror: bool = True
    degrees: float = Field(default=180.0, ge=0.0, le=180.0)
    zoom: float = Field(default=1.1, ge=1.0, le=4.0)
    shear_degrees: float = Field(default=0.0, ge=0.0, le=45.0)
    shift_arcsec: NonNegativeFloat = 0.5


STILL = Parameters(mirror=False, degrees=0.0, zoom=1.0, shear_degrees=0.0, shift_arcsec=0.0)
KEEPS_FLUX = False


def apply(p: Parameters, images: Images, scales: Scales, generator: Generator) -> dict[str, Tensor]:
    """Each source by its own draw."""
    if p == STILL:
        return dict(images)
    like = first(images)
    shift = between((len(like), 2), p.shift_arcsec, like, generator)
    return warp(images, scales, _matrix(p, like, generator), shift)


def _matrix(p: Parameters, like: Tensor, generator: Generator) -> Tensor:
    n = (len(like),)
    angle = between(n, math.radians(p.degrees), like, generator)
    factor = torch.exp(between(n, math.log(p.zoom), like, generator))
    lean = torch.tan(between(n, math.radians(p.shear_degrees), like, generator))
    side = _sides(n, like, generator) if p.mirror else torch.ones_like(angle)
    return rotation(angle) @ shearing(lean) @ scaling(side / factor, 1.0 / factor)


def _sides(n: tuple[int, ...], like: Tensor, generator: Generator) -> Tensor:
    """1 or -1, as likely."""
    return 2.0 * torch.randint(2, n, generator=generator, device=like.device) - 1.0
