"""A satellite or aeroplane crossed one exposure: a straight line, now and then of glints."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from training.simulate.defects._lines import along_and_across
from training.simulate.observe import Conditions

if TYPE_CHECKING:
    from jaxtyping import Float32

# Peak of the trail in units of the sky's rms in the stack.
PEAK_SIGMA = (3.0, 60.0)
_GLINTS = 0.2
# Seeing in pixels: width that the line has at least, and how much out of focus it may be.
_NARROWEST_PIXELS, _BLUR = 1.5, (1.0, 1.8)


def apply(
    rng: np.random.Generator, image: Float32[np.ndarray, "band y x"], seen: Conditions
) -> None:
    """Add a trail in one band, with its own photon noise."""
    band = int(rng.integers(len(image)))
    shape = image.shape[1:]
    middle = (np.array(shape[::-1]) - 1) / 2 + rng.uniform(-0.35, 0.35, 2) * np.array(shape[::-1])
    along, across = along_and_across(shape, (middle[0], middle[1]), float(rng.uniform(0, np.pi)))
    width = _NARROWEST_PIXELS * float(rng.uniform(*_BLUR))
    light = np.exp(-0.5 * (across / width) ** 2) * float(np.exp(rng.uniform(*np.log(PEAK_SIGMA))))
    if rng.random() < _GLINTS:
        period = float(rng.uniform(6.0, 20.0))
        light *= np.maximum(np.cos(2 * np.pi * along / period + rng.uniform(0, 6.3)), 0.0)
    light *= seen.sky_rms[band]
    light += np.sqrt(light / seen.electrons[band]) * rng.standard_normal(shape)
    image[band] += light.astype(np.float32)
