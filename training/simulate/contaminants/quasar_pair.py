"""Two blue point sources, on either side of a red galaxy or alone: quasars of different redshifts
by chance, so that their colours differ where those of lensed images agree."""

from __future__ import annotations

import numpy as np

from training.simulate import priors
from training.simulate.contaminants._parts import magnitudes_of, of_host, points_of, polar
from training.simulate.passband import Filters
from training.simulate.scene import Point, Scene

SEPARATION_ARCSEC = (1.0, 5.0)
REDSHIFT = (0.5, 3.5)
I_MAG = (18.0, 21.5)
_WITH_GALAXY = 0.5


def draw(rng: np.random.Generator, filters: Filters) -> Scene:
    """A random one."""
    first = priors.counts(rng, *I_MAG)
    x, y = (0.5 * c for c in polar(rng, *SEPARATION_ARCSEC))
    off = float(rng.uniform(0.6, 1.4))  # the galaxy is rarely half-way between them
    points = [
        _quasar(rng, filters, first, (x, y)),
        _quasar(rng, filters, first + float(rng.uniform(0.0, 1.5)), (-off * x, -off * y)),
    ]
    if rng.random() > _WITH_GALAXY:
        return points_of("quasar_pair", points, first)
    host = of_host("quasar_pair", priors.draw_host(rng, filters), [])
    return _between(host, points)


def _quasar(
    rng: np.random.Generator, filters: Filters, i_mag: float, at: tuple[float, float]
) -> Point:
    z = float(rng.uniform(*REDSHIFT))
    return Point(at[0], at[1], magnitudes_of(rng, "quasar", z, i_mag, filters))


def _between(host: Scene, points: list[Point]) -> Scene:
    """The galaxy with the points about it, all of which the catalogue took for one source."""
    total = priors.combined([host.magnitudes, *(point.magnitudes for point in points)])
    return Scene(
        host.kind,
        host.components,
        total,
        host.half_light_radius_arcsec,
        host.i_mag,
        points=tuple(points),
        truth=host.truth,
    )
