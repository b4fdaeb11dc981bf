"""Moves by whole pixels: one gather, no interpolation, edges repeated."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int64
from torch import Tensor


def gather(
    image: Float[Tensor, "n band y x"], index: Int64[Tensor, "n y x"]
) -> Float[Tensor, "n band y x"]:
    """Stamps made of the pixels that `index` names, the same in every band."""
    n, bands = image.shape[:2]
    flat = image.flatten(2).gather(2, index.reshape(n, 1, -1).expand(n, bands, -1))
    return flat.reshape(image.shape)


def turned_pixels(
    element: Int64[Tensor, " n"], size: int, about_source: bool = False
) -> Int64[Tensor, "n size size"]:
    """Flat index of the pixel that each pixel of a turned stamp is taken from.

    element: 0 to 7; its bits are: mirror in x, mirror in y, transpose. about_source: turn about the
    pixel size // 2, where readers put the source, and not about the array's middle.
    """
    line = torch.arange(size, device=element.device)
    mirrored = (2 * (size // 2) - line).clamp(max=size - 1) if about_source else line.flip(0)
    bits = element[:, None, None]
    columns = torch.where(bits & 1 > 0, mirrored[None, None, :], line[None, None, :])
    rows = torch.where(bits & 2 > 0, mirrored[None, :, None], line[None, :, None])
    return torch.where(bits & 4 > 0, columns * size + rows, rows * size + columns)


def shifted_pixels(shift: Int64[Tensor, "2 n"], size: int) -> Int64[Tensor, "n size size"]:
    """Flat index for a shift by whole rows and columns."""
    line = torch.arange(size, device=shift.device)
    rows = (line[None, :] + shift[0][:, None]).clamp(0, size - 1)
    columns = (line[None, :] + shift[1][:, None]).clamp(0, size - 1)
    return rows[:, :, None] * size + columns[:, None, :]
