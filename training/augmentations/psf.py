"""Extra blur: worse seeing than the stamp was taken in. Its noise is blurred too."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from pydantic import NonNegativeFloat
from torch import Generator, Tensor
from torch.nn import functional

from lenspipe.cutouts.base import Block
from training.augmentations import Images, Scales
from training.augmentations._draw import first

FWHM_PER_SIGMA = 2.0 * math.sqrt(2.0 * math.log(2.0))
REACH_SIGMAS = 4.0


class Parameters(Block):
    """fwhm_arcsec: largest width of the Gaussian that stamps are convolved with, uniform from 0.
    bands_apart: each band by its own draw, as seeing differs between bands; else all alike."""

    fwhm_arcsec: NonNegativeFloat = 0.5
    bands_apart: bool = False


STILL = Parameters(fwhm_arcsec=0.0)
KEEPS_FLUX = True


def apply(p: Parameters, images: Images, scales: Scales, generator: Generator) -> dict[str, Tensor]:
    """Each source by its own draw."""
    if not p.fwhm_arcsec:
        return dict(images)
    like = first(images)
    most = max(image.shape[1] for image in images.values()) if p.bands_apart else 1
    drawn = torch.rand((len(like), most), generator=generator, device=like.device)
    sigma = drawn * p.fwhm_arcsec / FWHM_PER_SIGMA  # (n, band) or (n, 1), arcsec
    largest = p.fwhm_arcsec / FWHM_PER_SIGMA
    return {
        name: _blurred(image, sigma[:, : image.shape[1]] / scales[name], largest / scales[name])
        for name, image in images.items()
    }


def _blurred(
    image: Float[Tensor, "n band y x"], sigma: Float[Tensor, "n widths"], largest: float
) -> Float[Tensor, "n band y x"]:
    reach = min(math.ceil(REACH_SIGMAS * largest), image.shape[-1] - 1)
    kernels = _gaussians(sigma.expand(image.shape[:2]).flatten(), reach)  # (n * band, k)
    flat = functional.pad(image.flatten(0, 1)[None], (reach,) * 4, mode="reflect")
    groups = flat.shape[1]
    flat = functional.conv2d(flat, kernels[:, None, None, :], groups=groups)
    flat = functional.conv2d(flat, kernels[:, None, :, None], groups=groups)
    return flat[0].reshape(image.shape)


def _gaussians(sigma: Float[Tensor, " m"], reach: int) -> Float[Tensor, "m k"]:
    offsets = torch.arange(-reach, reach + 1, device=sigma.device, dtype=torch.float32)
    shape = torch.exp(-0.5 * (offsets / sigma.clamp(min=1e-3)[:, None]) ** 2)
    return shape / shape.sum(dim=1, keepdim=True)
