"""Charge of a saturated star outside of the stamp, spilt along columns into it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from training.simulate.observe import Conditions

if TYPE_CHECKING:
    from jaxtyping import Float32

PEAK_SIGMA = (30.0, 3000.0)
WIDTH_PIXELS = (1, 4)
_BANDS_SHARE = 0.5


def apply(
    rng: np.random.Generator, image: Float32[np.ndarray, "band y x"], seen: Conditions
) -> None:
    """Add a run of full columns that enters at one edge, in one band or in all (as bright stars
    saturate in all); along columns or, as stacks are turned, rows."""
    everywhere = bool(rng.random() < _BANDS_SHARE)
    bands = range(len(image)) if everywhere else [int(rng.integers(len(image)))]
    turned, reversed_ = rng.random(2) < 0.5
    peak = np.exp(rng.uniform(*np.log(PEAK_SIGMA)))
    start = int(rng.integers(image.shape[-1]))
    for band in bands:
        plane = image[band].T if turned else image[band]
        run = plane[::-1] if reversed_ else plane
        length = int(rng.integers(run.shape[0] // 4, run.shape[0] + 1))
        width = int(rng.integers(*WIDTH_PIXELS))
        faded = np.linspace(1.0, 0.6, length)[:, None] * peak * seen.sky_rms[band]
        run[:length, start : start + width] += faded.astype(np.float32)
