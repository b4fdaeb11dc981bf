"""Cosmic rays that the stack kept: short tracks sharper than any star, in one band."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from training.simulate.defects._lines import along_and_across
from training.simulate.observe import Conditions

if TYPE_CHECKING:
    from jaxtyping import Float32

# Brightness along the track in units of the sky's rms in the stack.
PEAK_SIGMA = (15.0, 300.0)
LENGTH_PIXELS = (0.0, 14.0)
_HITS = 4
_WIDTH_PIXELS = 0.45


def apply(
    rng: np.random.Generator, image: Float32[np.ndarray, "band y x"], seen: Conditions
) -> None:
    """Add one to four tracks."""
    shape = image.shape[1:]
    for _ in range(rng.integers(1, _HITS + 1)):
        band = int(rng.integers(len(image)))
        at = (float(rng.uniform(0, shape[1])), float(rng.uniform(0, shape[0])))
        along, across = along_and_across(shape, at, float(rng.uniform(0, np.pi)))
        beyond = np.maximum(np.abs(along) - rng.uniform(*LENGTH_PIXELS) / 2, 0.0)
        peak = seen.sky_rms[band] * np.exp(rng.uniform(*np.log(PEAK_SIGMA)))
        track = peak * np.exp(-0.5 * (across**2 + beyond**2) / _WIDTH_PIXELS**2)
        image[band] += track.astype(np.float32)
