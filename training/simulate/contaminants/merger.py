"""Two or three galaxies that touch, red or blue, often with a tidal tail."""

from __future__ import annotations

import numpy as np

from training.simulate import colours, priors
from training.simulate.contaminants._parts import (
    disc_radius,
    disc_redshift,
    draw_i_mag,
    magnitudes_of,
    polar,
    scene_of,
)
from training.simulate.passband import Filters
from training.simulate.scene import Component, Scene


def draw(rng: np.random.Generator, filters: Filters) -> Scene:
    """A random one."""
    i_mag = draw_i_mag(rng)
    z = disc_redshift(rng, i_mag)
    parts: list[Component] = []
    for k in range(2 + int(rng.random() < 0.3)):
        own = i_mag + (0.5 if k == 0 else float(rng.uniform(0.6, 2.5)))
        red = rng.random() < 0.45
        light = magnitudes_of(rng, "passive" if red else "disc", z, own, filters)
        radius = disc_radius(rng, own) * float(rng.uniform(0.4, 0.9))
        index = float(rng.uniform(2.0, 4.5) if red else rng.uniform(0.7, 1.6))
        at = (0.0, 0.0) if k == 0 else polar(rng, 0.7, 3.5)
        parts.append(priors.sersic(light, radius, index, priors.ellipticity(rng, 0.3, 0.95), at))
    parts.extend(_tail(rng, filters, i_mag, z) for _ in range(rng.integers(0, 3)))
    return scene_of("merger", parts, disc_radius(rng, i_mag), z, i_mag)


def _tail(rng: np.random.Generator, filters: Filters, i_mag: float, redshift: float) -> Component:
    """A curved stream of stars that starts at the galaxy."""
    radius = float(rng.uniform(1.5, 4.5))
    away = rng.uniform(0, 2 * np.pi)
    parameters = {
        "radius_arcsec": radius,
        "width_arcsec": float(rng.uniform(0.25, 0.6)),
        "contrast": float(rng.uniform(1.5, 6.0)),
        "start_rad": float(away + np.pi + rng.normal(0, 0.8)),
        "center_x": float(radius * np.cos(away) * rng.uniform(0.3, 1.0)),
        "center_y": float(radius * np.sin(away) * rng.uniform(0.3, 1.0)),
    }
    colour = colours.draw(rng, "disc", redshift, filters)
    return Component(
        "RING", parameters, priors.magnitudes(i_mag + float(rng.uniform(1.5, 3.5)), colour)
    )
