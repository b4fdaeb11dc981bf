"""A lens-like host with blue galaxies beside it that are not lensed: the hard negative.

Their brightness, size and colour are those of arcs; some lie tangentially by chance.
"""

from __future__ import annotations

import numpy as np

from training.simulate import colours, priors
from training.simulate.contaminants._parts import of_host, polar
from training.simulate.passband import Filters
from training.simulate.scene import Scene


def draw(rng: np.random.Generator, filters: Filters) -> Scene:
    """A random one."""
    host = priors.draw_host(rng, filters)
    others = []
    for _ in range(1 + int(rng.random() < 0.3)):
        x, y = polar(rng, 0.8, 4.0)
        spectrum, z = ("source", 0.8) if rng.random() < 0.6 else ("disc", 0.3)
        colour = colours.draw(rng, spectrum, z, filters, reference="r")
        light = priors.magnitudes(priors.counts(rng, 20.0, 22.8), colour)
        q = float(rng.uniform(0.2, 0.95))
        tangential = np.arctan2(y, x) + np.pi / 2
        angle = tangential + rng.normal(0, 0.3) if rng.random() < 0.3 else rng.uniform(0, np.pi)
        radius = float(rng.uniform(0.15, 0.7))
        index = float(rng.uniform(0.6, 1.8))
        others.append(
            priors.sersic(light, radius, index, priors.ellipticity_of(q, float(angle)), (x, y))
        )
    return of_host("companion", host, others)
