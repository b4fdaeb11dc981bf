"""Affine views of stamps in one interpolation, the same on the sky in every input."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from training.augmentations import Images, Scales


def rotation(angle: Float[Tensor, " n"]) -> Float[Tensor, "n 2 2"]:
    """Turns (x, y) by `angle` (rad)."""
    cosine, sine = torch.cos(angle), torch.sin(angle)
    return _matrix(cosine, -sine, sine, cosine)


def scaling(x: Float[Tensor, " n"], y: Float[Tensor, " n"]) -> Float[Tensor, "n 2 2"]:
    """Multiplies x and y."""
    return _matrix(x, torch.zeros_like(x), torch.zeros_like(x), y)


def shearing(tangent: Float[Tensor, " n"]) -> Float[Tensor, "n 2 2"]:
    """Moves x by `tangent` times y; areas stay."""
    one = torch.ones_like(tangent)
    return _matrix(one, tangent, torch.zeros_like(one), one)


def warp(
    images: Images,
    scales: Scales,
    matrix: Float[Tensor, "n 2 2"],
    shift_arcsec: Float[Tensor, "n 2"],
) -> dict[str, Tensor]:
    """Each stamp seen through its own affine map, about the pixel size // 2, bicubic.

    matrix, shift_arcsec (x, y): from offsets in the new stamp to offsets in the old one. Surface
    brightness is kept. What lies outside is the inside, mirrored: noise stays noise there.
    """
    return {
        name: _resample(image, matrix, shift_arcsec / scales[name])
        for name, image in images.items()
    }


def _resample(
    image: Float[Tensor, "n band y x"],
    matrix: Float[Tensor, "n 2 2"],
    shift: Float[Tensor, "n 2"],
) -> Float[Tensor, "n band y x"]:
    size = image.shape[-1]
    middle = size // 2
    line = torch.arange(size, device=image.device, dtype=torch.float32) - middle
    y, x = torch.meshgrid(line, line, indexing="ij")
    offsets = torch.stack([x, y], dim=-1)  # (y, x, 2)
    source = torch.einsum("nij,yxj->nyxi", matrix, offsets) + shift[:, None, None, :]
    grid = 2.0 * (source + middle) / (size - 1) - 1.0  # grid_sample's -1 to 1, ends on pixels
    return functional.grid_sample(
        image, grid, mode="bicubic", padding_mode="reflection", align_corners=True
    )


def _matrix(xx: Tensor, xy: Tensor, yx: Tensor, yy: Tensor) -> Float[Tensor, "n 2 2"]:
    return torch.stack([torch.stack([xx, xy], -1), torch.stack([yx, yy], -1)], -2)
