"""A luminous red galaxy: most as lens hosts are, the others of any mass."""

from __future__ import annotations

import numpy as np

from training.simulate import priors
from training.simulate.contaminants._parts import of_host
from training.simulate.passband import Filters
from training.simulate.scene import Scene


def draw(rng: np.random.Generator, filters: Filters) -> Scene:
    """A random one."""
    host = priors.draw_host(rng, filters, massive=bool(rng.random() < 0.7))
    return of_host("early_type", host, [])
