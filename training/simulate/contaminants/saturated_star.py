"""A star that fills the detector's pixels; the caller lets them bleed (`observe.saturate`)."""

from __future__ import annotations

import numpy as np

from training.simulate import priors
from training.simulate.contaminants._parts import magnitudes_of
from training.simulate.passband import Filters
from training.simulate.scene import Point, Scene


def draw(rng: np.random.Generator, filters: Filters) -> Scene:
    """A random one."""
    i_mag = priors.counts(rng, 9.0, 13.0)
    light = magnitudes_of(rng, "star", 0.0, i_mag, filters)
    return Scene("saturated_star", (), light, i_mag=i_mag, points=(Point(0.0, 0.0, light),))
