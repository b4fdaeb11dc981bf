"""A thin disc from its side, with a bulge; long, straight and sometimes blue."""

from __future__ import annotations

import numpy as np

from training.simulate import colours, priors
from training.simulate.contaminants._parts import (
    disc_radius,
    disc_redshift,
    draw_i_mag,
    magnitudes_of,
    scene_of,
)
from training.simulate.passband import Filters
from training.simulate.scene import Scene


def draw(rng: np.random.Generator, filters: Filters) -> Scene:
    """A random one."""
    i_mag = draw_i_mag(rng)
    z, radius = disc_redshift(rng, i_mag), disc_radius(rng, i_mag) * 1.3
    angle = float(rng.uniform(0, np.pi))
    disc_shape = priors.ellipticity_of(float(rng.uniform(0.1, 0.28)), angle)
    bulge_shape = priors.ellipticity_of(float(rng.uniform(0.5, 0.9)), angle)
    fraction = float(rng.uniform(0.05, 0.5))
    dust = float(rng.uniform(0.0, 0.35))
    clear = magnitudes_of(rng, "disc", z, i_mag - 2.5 * np.log10(1 - fraction), filters)
    disc = colours.tinted(clear, filters, colours.EDGE_ON_DUST, dust)
    bulge = magnitudes_of(rng, "passive", z, i_mag - 2.5 * np.log10(fraction), filters)
    parts = [
        priors.sersic(disc, radius, 1.0, disc_shape),
        priors.sersic(bulge, 0.3 * radius, float(rng.uniform(1.5, 4.0)), bulge_shape),
    ]
    return scene_of("edge_on", parts, radius, z, i_mag)
