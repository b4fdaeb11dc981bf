"""A star, now and then a pair that the catalogue took for one source."""

from __future__ import annotations

import numpy as np

from training.simulate.contaminants._parts import (
    draw_i_mag,
    magnitudes_of,
    points_of,
    polar,
)
from training.simulate.passband import Filters
from training.simulate.scene import Point, Scene


def draw(rng: np.random.Generator, filters: Filters) -> Scene:
    """A random one."""
    first = draw_i_mag(rng)
    points = [Point(0.0, 0.0, magnitudes_of(rng, "star", 0.0, first, filters))]
    if rng.random() < 0.25:
        x, y = polar(rng, 0.6, 3.0)
        second = first + float(rng.uniform(0.0, 2.5))
        points.append(Point(x, y, magnitudes_of(rng, "star", 0.0, second, filters)))
    return points_of("star", points, first)
