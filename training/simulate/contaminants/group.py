"""A red galaxy with two to five red companions of its own redshift."""

from __future__ import annotations

import numpy as np

from training.simulate import priors
from training.simulate.contaminants._parts import magnitudes_of, of_host, polar
from training.simulate.passband import Filters
from training.simulate.scene import Scene


def draw(rng: np.random.Generator, filters: Filters) -> Scene:
    """A random one."""
    host = priors.draw_host(rng, filters, massive=bool(rng.random() < 0.7))
    others = []
    for _ in range(rng.integers(2, 6)):
        i_mag = host.i_mag + float(rng.uniform(0.3, 3.5))
        light = magnitudes_of(rng, "passive", host.redshift, i_mag, filters)
        radius = host.radius_arcsec * 10.0 ** (-0.12 * (i_mag - host.i_mag))
        shape = priors.ellipticity(rng, 0.5, 1.0)
        index = float(rng.uniform(2.0, 4.5))
        others.append(priors.sersic(light, max(0.2, radius), index, shape, polar(rng, 1.0, 6.0)))
    return of_host("group", host, others)
