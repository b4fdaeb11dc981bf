"""What galaxies are like: distances, colours, sizes and luminosities that scenes are drawn from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np
from astropy.cosmology import FlatLambdaCDM
from astropy.cosmology import units as cosmology_units

from training.simulate import colours
from training.simulate.passband import Filters
from training.simulate.scene import Component

if TYPE_CHECKING:
    from jaxtyping import Float64

COSMOLOGY = FlatLambdaCDM(H0=70.0, Om0=0.3)
SPEED_OF_LIGHT_KM_S = 299792.458
ARCSEC_PER_RADIAN = 206264.80624709636

# Luminosity of an early type of 220 km/s, i-band, observed frame (passive evolution makes up for
# the K correction), its slope with log10 sigma and its scatter: the same galaxies.
M_I, M_SLOPE, _M_SCATTER = -22.6, -5.5, 0.35
# Half-light radius at that luminosity (kpc), slope per magnitude (dex), scatter (dex): Shen et al.
# 2003 (MNRAS 343, 978), equation 14 and figure 6.
_RADIUS_KPC, _RADIUS_SLOPE, _RADIUS_SCATTER = 5.6, -0.24, 0.13

Magnitudes = Mapping[str, float]


@lru_cache(maxsize=1)
def _distances() -> tuple[Float64[np.ndarray, " z"], Float64[np.ndarray, " z"]]:
    """Comoving distance in Mpc on a grid of redshifts."""
    z = np.linspace(0.0, 6.0, 1201)
    distance = np.asarray(COSMOLOGY.comoving_distance(z * cosmology_units.redshift).to_value("Mpc"))
    return z, distance


def comoving_mpc(redshift: float) -> float:
    """Comoving distance in Mpc, interpolated."""
    return float(np.interp(redshift, *_distances()))


def distance_modulus(redshift: float) -> float:
    """m - M without K correction."""
    return float(5.0 * np.log10(comoving_mpc(redshift) * (1.0 + redshift) * 1e5))


def kpc_per_arcsec(redshift: float) -> float:
    """Proper transverse size of one arcsec."""
    return comoving_mpc(redshift) / (1.0 + redshift) * 1e3 / ARCSEC_PER_RADIAN


def theta_e_arcsec(sigma_km_s: float, z_lens: float, z_source: float) -> float:
    """Einstein radius of a singular isothermal sphere, 4 pi (sigma / c)^2 D_ls / D_s.

    Narayan & Bartelmann 1996 (astro-ph/9606001), equation 45; flat universe.
    """
    ratio = 1.0 - comoving_mpc(z_lens) / comoving_mpc(z_source)
    return 4 * np.pi * (sigma_km_s / SPEED_OF_LIGHT_KM_S) ** 2 * max(ratio, 0.0) * ARCSEC_PER_RADIAN


def truncated_normal(
    rng: np.random.Generator, mean: float, sigma: float, low: float, high: float
) -> float:
    """A normal deviate within [low, high]."""
    while True:
        value = float(rng.normal(mean, sigma))
        if low <= value <= high:
            return value


def counts(rng: np.random.Generator, bright: float, faint: float, slope: float = 0.35) -> float:
    """A magnitude from number counts that rise as 10^(slope m) between two limits."""
    low, high = 10.0 ** (slope * bright), 10.0 ** (slope * faint)
    return float(np.log10(rng.uniform(low, high)) / slope)


def ellipticity(rng: np.random.Generator, q_low: float, q_high: float) -> tuple[float, float]:
    """(e1, e2) of a random orientation and an axis ratio in [q_low, q_high]."""
    return ellipticity_of(float(rng.uniform(q_low, q_high)), float(rng.uniform(0.0, np.pi)))


def ellipticity_of(q: float, angle_rad: float) -> tuple[float, float]:
    """lenstronomy's (e1, e2) of an axis ratio and a position angle from the x axis."""
    modulus = (1.0 - q) / (1.0 + q)
    return modulus * np.cos(2 * angle_rad), modulus * np.sin(2 * angle_rad)


def magnitudes(reference_mag: float, colour: Mapping[str, float]) -> dict[str, float]:
    """Magnitudes from that in the reference band and the colours that `colours.draw` gives."""
    return {band: reference_mag + difference for band, difference in colour.items()}


def split(total: Magnitudes, fraction: float) -> tuple[dict[str, float], dict[str, float]]:
    """Magnitudes of the part with `fraction` of the light and of the rest."""
    first = {band: m - 2.5 * float(np.log10(fraction)) for band, m in total.items()}
    rest = {band: m - 2.5 * float(np.log10(1.0 - fraction)) for band, m in total.items()}
    return first, rest


def combined(parts: list[Magnitudes]) -> dict[str, float]:
    """Total magnitudes of several parts."""
    return {
        band: float(-2.5 * np.log10(sum(10.0 ** (-0.4 * part[band]) for part in parts)))
        for band in parts[0]
    }


def sersic(
    magnitudes_: Magnitudes,
    radius_arcsec: float,
    index: float,
    shape: tuple[float, float],
    centre: tuple[float, float] = (0.0, 0.0),
) -> Component:
    """An elliptical Sersic component; shape (e1, e2), centre (x, y) in arcsec."""
    parameters = {
        "R_sersic": radius_arcsec,
        "n_sersic": index,
        "e1": shape[0],
        "e2": shape[1],
        "center_x": centre[0],
        "center_y": centre[1],
    }
    return Component("SERSIC_ELLIPSE", parameters, magnitudes_)


@dataclass(frozen=True)
class Host:
    """An early-type galaxy: redshift, velocity dispersion (km/s), Pan-STARRS i magnitude,
    magnitudes in the survey's bands, light and its shape."""

    redshift: float
    sigma_km_s: float
    i_mag: float
    magnitudes: Magnitudes
    radius_arcsec: float
    shape: tuple[float, float]
    components: tuple[Component, ...]


def draw_host(rng: np.random.Generator, filters: Filters, *, massive: bool = True) -> Host:
    """An early type between i = 15 and 21.5, redshift 0.06 to 0.7.

    massive: one that could be a lens of Einstein radius above 0.6 arcsec with a source at
    redshift 2, 180 to 380 km/s; otherwise 110 to 380 km/s.
    """
    while True:
        z = truncated_normal(rng, 0.38, 0.22, 0.06, 0.7)
        mean, low = (280.0, 180.0) if massive else (200.0, 110.0)
        sigma = truncated_normal(rng, mean, 50.0, low, 380.0)
        absolute = M_I + M_SLOPE * np.log10(sigma / 220.0) + rng.normal(0.0, _M_SCATTER)
        i_mag = absolute + distance_modulus(z)
        if 15.0 < i_mag < 21.5 and (not massive or theta_e_arcsec(sigma, z, 2.0) > 0.6):
            return _host(rng, filters, z, sigma, float(i_mag), float(absolute))


def _host(
    rng: np.random.Generator,
    filters: Filters,
    z: float,
    sigma: float,
    i_mag: float,
    absolute: float,
) -> Host:
    kpc = _RADIUS_KPC * 10.0 ** (
        _RADIUS_SLOPE * (absolute - M_I) + rng.normal(0.0, _RADIUS_SCATTER)
    )
    radius = max(0.25, kpc / kpc_per_arcsec(z))
    total = magnitudes(i_mag, colours.draw(rng, "passive", z, filters))
    q, angle = truncated_normal(rng, 0.8, 0.13, 0.45, 0.99), float(rng.uniform(0, np.pi))
    shape = ellipticity_of(q, angle)
    index = truncated_normal(rng, 4.3, 1.2, 2.2, 7.0)
    if rng.random() < 0.6:
        parts: tuple[Component, ...] = (sersic(total, radius, index, shape),)
    else:
        # A bulge in an envelope of another flattening, slightly twisted: what one Sersic profile
        # leaves as residual is then not only arcs.
        inner, outer = split(total, float(rng.uniform(0.35, 0.75)))
        envelope = ellipticity_of(min(0.99, q * rng.uniform(0.7, 1.15)), angle + rng.normal(0, 0.3))
        parts = (
            sersic(inner, 0.55 * radius, index, shape),
            sersic(outer, 1.7 * radius, float(rng.uniform(1.0, 2.5)), envelope),
        )
    return Host(z, sigma, i_mag, total, radius, shape, parts)
