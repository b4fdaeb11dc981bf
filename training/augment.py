"""Random changes of training stamps, on whatever device they are."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int64
from torch import Generator, Tensor

from training.recipe import Augmentation

LOG_FLUX_PER_MAG = 0.4 * 2.302585092994046


def augment(
    images: Float[Tensor, "n band y x"], choice: Augmentation, generator: Generator
) -> Float[Tensor, "n band y x"]:
    """Another view of each stamp, in flux. The generator lives on the images' device."""
    images = move(images, choice, generator)
    images = brighten(images, choice, generator)
    return add_noise(images, choice.noise, generator)


def move(
    images: Float[Tensor, "n band y x"], choice: Augmentation, generator: Generator
) -> Float[Tensor, "n band y x"]:
    """Rotate or mirror, and shift by whole pixels, each stamp by its own draw, in one gather."""
    if not choice.d4 and not choice.shift_pixels:
        return images
    n, bands, size, _ = images.shape
    device = images.device
    element = torch.randint(8 if choice.d4 else 1, (n,), generator=generator, device=device)
    reach = choice.shift_pixels
    shift = torch.randint(-reach, reach + 1, (2, n), generator=generator, device=device)
    index = source_pixels(element, shift, size)  # (n, y, x)
    flat = images.flatten(2).gather(2, index.reshape(n, 1, -1).expand(n, bands, -1))
    return flat.reshape(images.shape)


def source_pixels(
    element: Int64[Tensor, " n"], shift: Int64[Tensor, "2 n"], size: int
) -> Int64[Tensor, "n size size"]:
    """Flat index of the pixel that each pixel of the new stamp is taken from.

    element: 0 to 7; its bits are: mirror in x, mirror in y, transpose. shift: rows, columns.
    """
    line = torch.arange(size, device=element.device)
    rows = (line[None, :, None] + shift[0][:, None, None]).clamp(0, size - 1)
    columns = (line[None, None, :] + shift[1][:, None, None]).clamp(0, size - 1)
    bits = element[:, None, None]
    columns = torch.where(bits & 1 > 0, size - 1 - columns, columns)
    rows = torch.where(bits & 2 > 0, size - 1 - rows, rows)
    return torch.where(bits & 4 > 0, columns * size + rows, rows * size + columns)


def brighten(
    images: Float[Tensor, "n band y x"], choice: Augmentation, generator: Generator
) -> Float[Tensor, "n band y x"]:
    """Multiply flux: all bands of a stamp together, and each band by itself."""
    if not choice.brightness_mag and not choice.colour_mag:
        return images
    n, bands = images.shape[:2]
    together = _uniform((n, 1, 1, 1), images, generator) * choice.brightness_mag
    apart = _uniform((n, bands, 1, 1), images, generator) * choice.colour_mag
    return images * torch.exp(LOG_FLUX_PER_MAG * (together + apart))


def add_noise(
    images: Float[Tensor, "n band y x"], largest: float, generator: Generator
) -> Float[Tensor, "n band y x"]:
    """Add white noise of up to `largest` times the stamp's own, estimated per band."""
    if not largest:
        return images
    strength = _uniform((images.shape[0], 1, 1, 1), images, generator).abs() * largest
    white = torch.randn(images.shape, generator=generator, device=images.device)
    return images + strength * noise_rms(images) * white


def noise_rms(images: Float[Tensor, "n band y x"]) -> Float[Tensor, "n band 1 1"]:
    """Noise of each stamp and band, from the median difference of neighbours in the border."""
    border = torch.cat([images[..., :4, :], images[..., -4:, :]], dim=-2)
    steps = (border[..., 1:] - border[..., :-1]).abs().flatten(2)
    return (steps.median(dim=2).values * (1.4826 / 2**0.5))[..., None, None]


def _uniform(shape: tuple[int, ...], like: Tensor, generator: Generator) -> Tensor:
    """Between -1 and 1."""
    return 2.0 * torch.rand(shape, generator=generator, device=like.device) - 1.0
