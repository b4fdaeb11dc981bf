"""Random shifts of the centre: surveys' positions are not the deflectors' centres.

Random centroid shifts were among what helped most on HSC (Cañameras et al. 2024).
"""

from __future__ import annotations

import torch
from jaxtyping import Float, Int64
from pydantic import NonNegativeFloat, model_validator
from torch import Generator, Tensor

from lenspipe.cutouts.base import Block
from lenspipe.errors import InputError
from training.augmentations import Images, Scales
from training.augmentations._draw import between, first
from training.augmentations._pixels import gather, shifted_pixels
from training.augmentations._warp import warp


class Parameters(Block):
    """arcsec or pixels: largest shift in x and in y; pixels are those of the coarsest input.
    whole: by whole pixels, edges repeated; else any shift, interpolated."""

    arcsec: NonNegativeFloat | None = None
    pixels: NonNegativeFloat | None = None
    whole: bool = False

    @model_validator(mode="after")
    def _one_reach(self) -> Parameters:
        if (self.arcsec is None) == (self.pixels is None):
            raise ValueError("expected either arcsec or pixels")
        return self

    def reach(self, step_arcsec: float) -> float:
        """Largest shift (arcsec), for pixels of `step_arcsec`."""
        return self.arcsec if self.arcsec is not None else (self.pixels or 0.0) * step_arcsec


STILL = Parameters(pixels=0.0)
KEEPS_FLUX = True


def apply(p: Parameters, images: Images, scales: Scales, generator: Generator) -> dict[str, Tensor]:
    """Each source by its own draw. InputError: whole pixels that are not whole in every input."""
    coarsest = max(scales[name] for name in images)
    reach = p.reach(coarsest)
    like = first(images)
    if p.whole:
        return _by_whole_pixels(images, scales, round(reach / coarsest), generator)
    if not reach:
        return dict(images)
    shift = between((len(like), 2), reach, like, generator)
    return warp(images, scales, _identity(like), shift)


def _by_whole_pixels(
    images: Images, scales: Scales, reach: int, generator: Generator
) -> dict[str, Tensor]:
    like, coarsest = first(images), max(scales[name] for name in images)
    drawn = torch.randint(
        -reach, reach + 1, (2, len(like)), generator=generator, device=like.device
    )
    return {
        name: gather(
            image, shifted_pixels(_in_pixels(drawn, coarsest / scales[name]), len(image[0, 0]))
        )
        for name, image in images.items()
    }


def _in_pixels(shift: Int64[Tensor, "2 n"], ratio: float) -> Int64[Tensor, "2 n"]:
    if abs(ratio - round(ratio)) > 1e-6:
        raise InputError(
            "augmentation: shift.whole", "pixel scales that are multiples", f"a ratio of {ratio:g}"
        )
    return shift * round(ratio)


def _identity(like: Tensor) -> Float[Tensor, "n 2 2"]:
    return torch.eye(2, device=like.device).expand(len(like), 2, 2)
