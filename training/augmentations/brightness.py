"""Change of flux: all bands of a source together, and each by itself, which changes colours."""

from __future__ import annotations

import math

import torch
from pydantic import NonNegativeFloat
from torch import Generator, Tensor

from lenspipe.cutouts.base import Block
from training.augmentations import Images, Scales
from training.augmentations._draw import between, first

LOG_FLUX_PER_MAG = 0.4 * math.log(10.0)


class Parameters(Block):
    """all_mag: largest change of all bands and inputs of a source; colour_mag: of each band by
    itself; both to either side. Noise changes in proportion."""

    all_mag: NonNegativeFloat = 0.2
    colour_mag: NonNegativeFloat = 0.0


STILL = Parameters(all_mag=0.0)
KEEPS_FLUX = False


def apply(p: Parameters, images: Images, scales: Scales, generator: Generator) -> dict[str, Tensor]:
    """Each source by its own draw."""
    del scales
    if p == STILL:
        return dict(images)
    like = first(images)
    together = between((len(like), 1, 1, 1), p.all_mag, like, generator)
    changed = {}
    for name, image in images.items():
        apart = between((*image.shape[:2], 1, 1), p.colour_mag, image, generator)
        changed[name] = image * torch.exp(LOG_FLUX_PER_MAG * (together + apart))
    return changed
