"""Light profiles of unit total flux: lenstronomy's by their names, and three of our own."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np
from lenstronomy.LightModel.light_model import LightModel
from scipy.ndimage import map_coordinates
from scipy.special import erf, i0e

if TYPE_CHECKING:
    from jaxtyping import Float64

Parameters = Mapping[str, Any]


@lru_cache(maxsize=16)
def _lenstronomy(profile: str) -> LightModel:
    return LightModel([profile])


def _elliptical(
    x: Float64[np.ndarray, " n"], y: Float64[np.ndarray, " n"], parameters: Parameters
) -> tuple[Float64[np.ndarray, " n"], Float64[np.ndarray, " n"]]:
    """Radius and azimuth in the plane of an inclined disc; radius is sqrt(a b) of the ellipse."""
    e1, e2 = parameters.get("e1", 0.0), parameters.get("e2", 0.0)
    dx, dy = x - parameters.get("center_x", 0.0), y - parameters.get("center_y", 0.0)
    modulus = min(float(np.hypot(e1, e2)), 0.98)
    angle = 0.5 * np.arctan2(e2, e1)
    root_q = np.sqrt((1 - modulus) / (1 + modulus))
    major = dx * np.cos(angle) + dy * np.sin(angle)
    minor = -dx * np.sin(angle) + dy * np.cos(angle)
    u, v = major * np.sqrt(root_q), minor / np.sqrt(root_q)
    return np.hypot(u, v), np.arctan2(v, u)


def _around(phase: Float64[np.ndarray, " n"], contrast: float) -> Float64[np.ndarray, " n"]:
    """exp(contrast cos phase) with mean 1 over azimuth (von Mises), so that flux is kept."""
    return np.asarray(np.exp(contrast * (np.cos(phase) - 1.0)) / i0e(contrast))


def spiral_disc(
    x: Float64[np.ndarray, " n"], y: Float64[np.ndarray, " n"], parameters: Parameters
) -> Float64[np.ndarray, " n"]:
    """Exponential disc whose light gathers on logarithmic spiral arms.

    scale_arcsec: e-folding radius; arms: their number; pitch_rad: pitch angle; contrast: 0 is a
    smooth disc; start_rad: azimuth of the arms at the scale radius; e1, e2, center_x, center_y.
    """
    scale = parameters["scale_arcsec"]
    radius, azimuth = _elliptical(x, y, parameters)
    winding = np.log(np.maximum(radius / scale, 0.05)) / np.tan(parameters["pitch_rad"])
    phase = parameters["arms"] * (azimuth - winding - parameters["start_rad"])
    # Towards the centre an arm would wind faster than any pixel: the disc is smooth there.
    smooth = np.exp(-((0.45 * scale / np.maximum(radius, 1e-6)) ** 2))
    arms = 1.0 + smooth * (_around(phase, parameters["contrast"]) - 1.0)
    return np.asarray(np.exp(-radius / scale) * arms / (2 * np.pi * scale**2))


def ring(
    x: Float64[np.ndarray, " n"], y: Float64[np.ndarray, " n"], parameters: Parameters
) -> Float64[np.ndarray, " n"]:
    """Elliptical annulus of Gaussian cross-section; with a high contrast, one arc of it.

    radius_arcsec, width_arcsec (Gaussian sigma), contrast and lobes of the light along azimuth,
    start_rad: azimuth of the brightest point; e1, e2, center_x, center_y.
    """
    r0, width = parameters["radius_arcsec"], parameters["width_arcsec"]
    radius, azimuth = _elliptical(x, y, parameters)
    phase = parameters.get("lobes", 1) * (azimuth - parameters.get("start_rad", 0.0))
    cross = np.exp(-0.5 * ((radius - r0) / width) ** 2)
    # Integral of r exp(-(r - r0)^2 / 2 w^2) over r > 0.
    u = r0 / (np.sqrt(2.0) * width)
    radial = width**2 * np.exp(-(u**2)) + r0 * width * np.sqrt(np.pi / 2) * (1 + erf(u))
    return np.asarray(
        cross * _around(phase, parameters.get("contrast", 0.0)) / (2 * np.pi * radial)
    )


def stamp(
    x: Float64[np.ndarray, " n"], y: Float64[np.ndarray, " n"], parameters: Parameters
) -> Float64[np.ndarray, " n"]:
    """An image as a light profile, bilinear between its pixels and zero outside.

    lenstronomy's INTERPOL without the spline that it fits to the image at each call: image (y, x),
    scale (arcsec per pixel), phi_G (rotation, rad), center_x, center_y.
    """
    image, scale = parameters["image"], parameters["scale"]
    dx, dy = (x - parameters["center_x"]) / scale, (y - parameters["center_y"]) / scale
    cos, sin = np.cos(parameters["phi_G"]), np.sin(parameters["phi_G"])
    column = cos * dx + sin * dy + (image.shape[1] - 1) / 2
    row = -sin * dx + cos * dy + (image.shape[0] - 1) / 2
    light = map_coordinates(image, [row, column], order=1, mode="constant", output=np.float64)
    return np.asarray(light / (float(image.sum()) * scale**2))


OWN: Mapping[str, Callable[..., Float64[np.ndarray, " n"]]] = {
    "SPIRAL_DISC": spiral_disc,
    "RING": ring,
    "STAMP": stamp,
}


def surface_brightness(
    profile: str,
    parameters: Parameters,
    x: Float64[np.ndarray, " n"],
    y: Float64[np.ndarray, " n"],
) -> Float64[np.ndarray, " n"]:
    """Light per square arcsec at (x, y) arcsec of a profile whose total flux is 1."""
    if profile in OWN:
        return OWN[profile](x, y, parameters)
    light = _lenstronomy(profile).surface_brightness(x, y, [{**parameters, "amp": 1.0}])
    return np.asarray(light / unit_flux(profile, parameters), dtype=np.float64)


def unit_flux(profile: str, parameters: Parameters) -> float:
    """Total flux of one of lenstronomy's profiles with `amp` 1."""
    return float(_lenstronomy(profile).total_flux([{**parameters, "amp": 1.0}])[0])


def radius_arcsec(profile: str, parameters: Parameters) -> float:
    """A radius that holds about half of the light: sets how far a profile is rendered."""
    if profile == "SPIRAL_DISC":
        return 1.68 * float(parameters["scale_arcsec"])
    if profile == "RING":
        return float(parameters["radius_arcsec"] + parameters["width_arcsec"])
    if profile == "STAMP":
        return float(0.15 * parameters["scale"] * max(np.shape(parameters["image"])))
    return float(parameters.get("R_sersic", parameters.get("sigma", 1.0)))


def bright_radius_arcsec(profile: str, parameters: Parameters, faintest: float) -> float:
    """Radius beyond which a profile is below `faintest` of its central surface brightness.

    Sersic profiles by Ciotti & Bertin 1999 (astro-ph/9911078), b = 2 n - 1/3; six times the radius
    that holds half of the light for all others.
    """
    if profile != "SERSIC_ELLIPSE":
        return 6.0 * radius_arcsec(profile, parameters)
    index = parameters["n_sersic"]
    times = (-np.log(faintest) / (2.0 * index - 1.0 / 3.0)) ** index
    return float(parameters["R_sersic"] * times)
