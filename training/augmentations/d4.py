"""One of the eight rotations and mirrorings of a square, without interpolation.

Of one input about the array's middle, which loses no pixel; of several about the pixel where the
source is, which is the same point of the sky in all of them.
"""

from __future__ import annotations

import torch
from torch import Generator, Tensor

from lenspipe.cutouts.base import Block
from training.augmentations import Images, Scales
from training.augmentations._draw import first
from training.augmentations._pixels import gather, turned_pixels


class Parameters(Block):
    """mirror, transpose: whether stamps are mirrored in x and y, and transposed, half of the time
    each; both together are all eight elements."""

    mirror: bool = True
    transpose: bool = True


STILL = Parameters(mirror=False, transpose=False)
KEEPS_FLUX = True


def apply(p: Parameters, images: Images, scales: Scales, generator: Generator) -> dict[str, Tensor]:
    """Each source by its own draw."""
    del scales
    like = first(images)
    allowed = 3 * p.mirror + 4 * p.transpose
    drawn = torch.randint(8, (len(like),), generator=generator, device=like.device)
    element = drawn & allowed
    several = len(images) > 1
    return {
        name: gather(image, turned_pixels(element, image.shape[-1], about_source=several))
        for name, image in images.items()
    }
