"""What contaminants have in common: their light, places, sizes and redshifts."""

from __future__ import annotations

import numpy as np

from training.simulate import colours, priors
from training.simulate.passband import Filters
from training.simulate.priors import Host
from training.simulate.scene import Component, Point, Scene

BRIGHT_I_MAG, FAINT_I_MAG = 15.5, 21.0


def scene_of(
    kind: str, parts: list[Component], radius_arcsec: float, redshift: float, i_mag: float
) -> Scene:
    """A galaxy of these parts."""
    total = priors.combined([part.magnitudes for part in parts])
    return Scene(kind, tuple(parts), total, radius_arcsec, i_mag, truth={"z_lens": redshift})


def magnitudes_of(
    rng: np.random.Generator, spectrum: str, redshift: float, i_mag: float, filters: Filters
) -> dict[str, float]:
    """Magnitudes in all bands of light of a kind of spectrum with this Pan-STARRS i magnitude."""
    return priors.magnitudes(i_mag, colours.draw(rng, spectrum, redshift, filters))


def polar(rng: np.random.Generator, low: float, high: float) -> tuple[float, float]:
    """A place at a distance of low to high arcsec, even in area."""
    radius = np.sqrt(rng.uniform(low**2, high**2))
    angle = rng.uniform(0, 2 * np.pi)
    return float(radius * np.cos(angle)), float(radius * np.sin(angle))


def draw_i_mag(rng: np.random.Generator) -> float:
    """Pan-STARRS i magnitude of a contaminant."""
    # Flatter than the sky's counts, so that bright, well resolved examples are not rare.
    return priors.counts(rng, BRIGHT_I_MAG, FAINT_I_MAG, slope=0.12)


def disc_radius(rng: np.random.Generator, i_mag: float) -> float:
    """Half-light radius of a late type in arcsec against magnitude, with its scatter."""
    return float(np.clip(2.1 * 10.0 ** (-0.13 * (i_mag - 18.0) + rng.normal(0, 0.14)), 0.35, 7.0))


def disc_redshift(rng: np.random.Generator, i_mag: float) -> float:
    """Redshift of a late type against magnitude, with its scatter."""
    return float(np.clip(0.05 + 0.06 * (i_mag - 16.0) + rng.normal(0, 0.05), 0.02, 0.5))


def of_host(kind: str, host: Host, others: list[Component]) -> Scene:
    """A red galaxy, which the catalogue's magnitudes are of, and what stands beside it."""
    return Scene(
        kind,
        (*host.components, *others),
        host.magnitudes,
        host.radius_arcsec,
        host.i_mag,
        truth={"z_lens": host.redshift, "sigma_v_km_s": host.sigma_km_s},
    )


def points_of(kind: str, points: list[Point], i_mag: float) -> Scene:
    """Point sources that the catalogue took for one."""
    total = priors.combined([point.magnitudes for point in points])
    return Scene(kind, (), total, i_mag=i_mag, points=tuple(points))
