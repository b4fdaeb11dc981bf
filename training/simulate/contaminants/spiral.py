"""Red bulge, sometimes a bar, and a blue disc with logarithmic arms."""

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
from training.simulate.scene import Component, Scene


def draw(rng: np.random.Generator, filters: Filters) -> Scene:
    """A random one."""
    i_mag = draw_i_mag(rng)
    z, radius = disc_redshift(rng, i_mag), disc_radius(rng, i_mag)
    shape = priors.ellipticity(rng, 0.35, 1.0)
    bulge_fraction = float(rng.uniform(0.03, 0.45))
    disc = magnitudes_of(rng, "disc", z, i_mag - 2.5 * np.log10(1 - bulge_fraction), filters)
    bulge = magnitudes_of(rng, "passive", z, i_mag - 2.5 * np.log10(bulge_fraction), filters)
    smooth, arms = priors.split(disc, float(rng.uniform(0.2, 0.6)))
    arms = colours.tinted(arms, filters, colours.YOUNG_ARMS, float(rng.uniform(0.05, 0.3)))
    parameters = {
        "scale_arcsec": radius / 1.68 * float(rng.uniform(1.0, 1.25)),
        "arms": int(rng.choice([2, 2, 2, 3, 4])),
        "pitch_rad": float(np.radians(rng.uniform(12, 32))),
        "contrast": float(rng.uniform(1.0, 4.0)),
        "start_rad": float(rng.uniform(0, 2 * np.pi)),
        "e1": shape[0],
        "e2": shape[1],
        "center_x": 0.0,
        "center_y": 0.0,
    }
    parts = [
        Component("SPIRAL_DISC", parameters, arms),
        priors.sersic(smooth, radius, 1.0, shape),
    ]
    core = float(np.clip(radius * rng.uniform(0.12, 0.35), 0.15, 2.0))
    if rng.random() < 0.35:
        bar, bulge = priors.split(bulge, float(rng.uniform(0.3, 0.6)))
        along = priors.ellipticity(rng, 0.2, 0.4)
        parts.append(priors.sersic(bar, float(radius * rng.uniform(0.3, 0.6)), 0.7, along))
    parts.append(
        priors.sersic(bulge, core, float(rng.uniform(1.5, 4.0)), (shape[0] / 2, shape[1] / 2))
    )
    return scene_of("spiral", parts, radius, z, i_mag)
