"""Red core inside a blue ring, whole or broken: the nearest look-alike of an Einstein ring."""

from __future__ import annotations

import numpy as np

from training.simulate import priors
from training.simulate.contaminants._parts import disc_redshift, draw_i_mag, magnitudes_of, scene_of
from training.simulate.passband import Filters
from training.simulate.scene import Component, Scene


def draw(rng: np.random.Generator, filters: Filters) -> Scene:
    """A random one."""
    i_mag = draw_i_mag(rng)
    z = disc_redshift(rng, i_mag)
    radius = float(rng.uniform(1.2, 4.0))
    shape = priors.ellipticity(rng, 0.5, 1.0)
    fraction = float(rng.uniform(0.25, 0.65))
    core = magnitudes_of(rng, "passive", z, i_mag - 2.5 * np.log10(1 - fraction), filters)
    blue = magnitudes_of(rng, "disc", z, i_mag - 2.5 * np.log10(fraction), filters)
    parameters = {
        "radius_arcsec": radius,
        "width_arcsec": float(radius * rng.uniform(0.08, 0.28)),
        "contrast": float(rng.exponential(0.5)),
        "lobes": int(rng.integers(1, 4)),
        "start_rad": float(rng.uniform(0, 2 * np.pi)),
        "e1": shape[0],
        "e2": shape[1],
        "center_x": 0.0,
        "center_y": 0.0,
    }
    ring_light, disc_light = priors.split(blue, float(rng.uniform(0.5, 0.95)))
    core_radius = float(radius * rng.uniform(0.2, 0.45))
    parts = [
        Component("RING", parameters, ring_light),
        priors.sersic(disc_light, radius, 1.0, shape),
        priors.sersic(
            core, core_radius, float(rng.uniform(1.5, 4.0)), (shape[0] / 2, shape[1] / 2)
        ),
    ]
    return scene_of("ring", parts, radius, z, i_mag)
