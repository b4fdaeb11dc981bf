"""Added white noise: shallower exposures of the same field."""

from __future__ import annotations

import torch
from jaxtyping import Float
from pydantic import NonNegativeFloat
from torch import Generator, Tensor

from lenspipe.cutouts.base import Block
from training.augmentations import Images, Scales
from training.augmentations._draw import between, first


class Parameters(Block):
    """relative: largest added noise, in multiples of the stamp's own (rms)."""

    relative: NonNegativeFloat = 0.3


STILL = Parameters(relative=0.0)
KEEPS_FLUX = False


def apply(p: Parameters, images: Images, scales: Scales, generator: Generator) -> dict[str, Tensor]:
    """Each source by its own strength, the same in all of its bands and inputs."""
    del scales
    if not p.relative:
        return dict(images)
    like = first(images)
    strength = between((len(like), 1, 1, 1), p.relative, like, generator).abs()
    return {name: _noisy(image, strength, generator) for name, image in images.items()}


def noise_rms(images: Float[Tensor, "n band y x"]) -> Float[Tensor, "n band 1 1"]:
    """Noise of each stamp and band, from the median difference of neighbours in the border."""
    border = torch.cat([images[..., :4, :], images[..., -4:, :]], dim=-2)
    steps = (border[..., 1:] - border[..., :-1]).abs().flatten(2)
    return (steps.median(dim=2).values * (1.4826 / 2**0.5))[..., None, None]


def _noisy(image: Tensor, strength: Tensor, generator: Generator) -> Tensor:
    white = torch.randn(image.shape, generator=generator, device=image.device)
    return image + strength * noise_rms(image) * white
