"""Pixels that the survey lost, filled with the band's median, as the cutout readers fill them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from training.simulate.observe import Conditions

if TYPE_CHECKING:
    from jaxtyping import Bool, Float32

_ALL_BANDS, _COLUMNS, _TURNED, _MIRRORED = 0.4, 0.7, 0.5, 0.5


def apply(
    rng: np.random.Generator, image: Float32[np.ndarray, "band y x"], seen: Conditions
) -> None:
    """Masked columns or rows in one band or all, or an edge of the survey in all."""
    del seen
    for band, gone in zip(image, _lost(rng, image.shape), strict=True):
        band[gone] = np.median(band[~gone])


def _lost(rng: np.random.Generator, shape: tuple[int, ...]) -> Bool[np.ndarray, "band y x"]:
    lost = np.zeros(shape, dtype=bool)
    size = shape[-1]
    bands = slice(None) if rng.random() < _ALL_BANDS else int(rng.integers(shape[0]))
    start = int(rng.integers(size))
    if rng.random() < _COLUMNS:
        lost[bands, :, start : start + int(rng.integers(1, 5))] = True
    else:
        lost[:, :, : int(rng.integers(1, size // 5))] = True
    if rng.random() < _TURNED:
        lost = lost.swapaxes(1, 2)
    if rng.random() < _MIRRORED:
        lost = lost[:, ::-1, ::-1]
    return lost
