"""Mass that follows an early type, as far in front of a source as its Einstein radius asks."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from training.simulate import priors
from training.simulate.aim import NATURAL, Aim
from training.simulate.multiplicity import count_images
from training.simulate.priors import Host

SOURCE_REDSHIFT = (0.8, 3.0)
# Einstein radii below this are thinned out by (theta_E / this)^2: most lenses of the sky are too
# small for a ground-based survey to resolve, and would be most of the set.
_RESOLVED_ARCSEC = 1.7
# A host may stand for velocity dispersions that differ from its own by this much (dex): twice the
# scatter about the relation with luminosity.
_SIGMA_DEX = 0.12
# Places that are tried for a source that is to have a stated number of images.
_PLACES = 60


@dataclass(frozen=True)
class Deflector:
    """Mass of a host and how far the source is behind it; sigma_km_s gives theta_e_arcsec."""

    mass: tuple[tuple[str, dict[str, float]], ...]
    theta_e_arcsec: float
    z_source: float
    sigma_km_s: float


def _einstein_radius(
    rng: np.random.Generator,
    host: Host,
    z_source: float,
    within: tuple[float, float],
    wanted: float | None,
) -> tuple[float, float] | None:
    """(theta_E, sigma) of a host, or of one whose velocity dispersion gives the radius wanted."""
    natural = priors.theta_e_arcsec(host.sigma_km_s, host.redshift, z_source)
    if wanted is None:
        low, high = within
        kept = low < natural < high and rng.random() <= (natural / _RESOLVED_ARCSEC) ** 2
        return (natural, host.sigma_km_s) if kept else None
    dex = 0.5 * np.log10(wanted / natural)
    return (wanted, host.sigma_km_s * float(10.0**dex)) if abs(dex) < _SIGMA_DEX else None


def draw_mass(
    rng: np.random.Generator,
    host: Host,
    theta_e_arcsec: tuple[float, float],
    aim: Aim = NATURAL,
) -> Deflector | None:
    """Elliptical power law and external shear of a host.

    None where the Einstein radius is outside theta_e_arcsec, or is thinned out, or where the host
    could not have the one aimed at. Slopes: Auger et al. 2010 (arXiv:1007.2880), gamma 2.08 with
    scatter 0.16; axis ratio and angle scatter about the light's.
    """
    z_source = priors.truncated_normal(rng, 1.6, 0.6, *SOURCE_REDSHIFT)
    found = _einstein_radius(rng, host, z_source, theta_e_arcsec, aim.theta_e_arcsec)
    if found is None:
        return None
    theta_e, sigma = found
    modulus, angle = np.hypot(*host.shape), 0.5 * np.arctan2(host.shape[1], host.shape[0])
    q = np.clip((1 - modulus) / (1 + modulus) + rng.normal(0.0, 0.08), 0.5, 0.98)
    e1, e2 = priors.ellipticity_of(float(q), float(angle + rng.normal(0.0, 0.17)))
    gamma = aim.gamma or priors.truncated_normal(rng, 2.06, 0.14, 1.7, 2.4)
    shear, direction = rng.rayleigh(0.035), rng.uniform(0, 2 * np.pi)
    epl = {"theta_E": theta_e, "gamma": gamma, "e1": e1, "e2": e2, "center_x": 0.0, "center_y": 0.0}
    external = {"gamma1": shear * np.cos(direction), "gamma2": shear * np.sin(direction)}
    return Deflector((("EPL", epl), ("SHEAR", external)), theta_e, z_source, sigma)


def draw_place(
    rng: np.random.Generator, deflector: Deflector, quad: bool | None = None
) -> tuple[float, float] | None:
    """(x, y) arcsec of a source that is strongly lensed: four images or more, or two or three,
    where that is asked. None where no such place was found."""
    for _ in range(1 if quad is None else _PLACES):
        distance = 0.75 * deflector.theta_e_arcsec * np.sqrt(rng.random())
        angle = rng.uniform(0, 2 * np.pi)
        at = (float(distance * np.cos(angle)), float(distance * np.sin(angle)))
        if quad is None:
            return at
        images = count_images(deflector.mass, deflector.theta_e_arcsec, *at)
        if (images >= 4) == quad and images >= 2:
            return at
    return None
