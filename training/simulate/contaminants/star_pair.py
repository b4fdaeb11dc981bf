"""Two stars of like brightness close to each other, as a doubly imaged quasar would be."""

from __future__ import annotations

import numpy as np

from training.simulate.contaminants._parts import draw_i_mag, magnitudes_of, points_of, polar
from training.simulate.passband import Filters
from training.simulate.scene import Point, Scene

SEPARATION_ARCSEC = (0.7, 4.0)


def draw(rng: np.random.Generator, filters: Filters) -> Scene:
    """A random one, about the middle between the two."""
    first = draw_i_mag(rng)
    second = first + float(rng.uniform(0.0, 1.5))
    x, y = (0.5 * c for c in polar(rng, *SEPARATION_ARCSEC))
    points = [
        Point(x, y, magnitudes_of(rng, "star", 0.0, first, filters)),
        Point(-x, -y, magnitudes_of(rng, "star", 0.0, second, filters)),
    ]
    return points_of("star_pair", points, first)
