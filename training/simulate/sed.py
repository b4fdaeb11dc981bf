"""Spectra of galaxies, quasars and stars, and their AB magnitudes through filters at a redshift."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import yaml

from training.simulate.passband import Passband

if TYPE_CHECKING:
    from jaxtyping import Float64

_FOLDER = Path(__file__).parent / "seds"
# Rest-frame wavelengths, even in logarithm. Below the Lyman limit nothing is transmitted.
_STEP = 0.0025
REST_ANGSTROM = 912.0 * np.exp(_STEP * np.arange(1328))
# What is fainter than this part of a spectrum's mean flux is as good as dark, not infinitely faint.
_DARKEST = 1e-5

# Lyman series: wavelength (Angstrom) and strength of the forest (Madau 1995, ApJ 441, 18, eq. 15).
_LYMAN = ((1215.67, 3.6e-3), (1025.72, 1.7e-3), (972.54, 1.2e-3), (949.74, 9.3e-4))
_LYMAN_LIMIT = 911.75


def names() -> tuple[str, ...]:
    """Spectra in `seds/`, one file each."""
    return tuple(sorted(path.stem for path in _FOLDER.glob("*.yaml")))


def file_of(name: str) -> Path:
    """Where a spectrum lies."""
    return _FOLDER / f"{name}.yaml"


@lru_cache(maxsize=64)
def _content(name: str) -> dict[str, Any]:
    content: dict[str, Any] = yaml.safe_load(file_of(name).read_text("utf-8"))
    return content


def spectrum(name: str) -> Float64[np.ndarray, " w"]:
    """f_lambda on `REST_ANGSTROM` in units of its value at 5500 Angstrom."""
    content = _content(name)
    flux = _composite(content) if "continuum" in content else _table(content)
    return np.asarray(flux / np.interp(5500.0, REST_ANGSTROM, flux))


def _table(content: dict[str, Any]) -> Float64[np.ndarray, " w"]:
    flux = np.array(content["f_lambda"], dtype=np.float64)
    wavelength = content["start_angstrom"] * content["ratio"] ** np.arange(len(flux))
    return np.asarray(np.interp(REST_ANGSTROM, wavelength, flux))


def _composite(content: dict[str, Any]) -> Float64[np.ndarray, " w"]:
    """Power laws that join, and broad emission lines by equivalent width."""
    edges = np.log(content["continuum"]["wavelength_angstrom"])
    level = np.concatenate([[0.0], np.cumsum(np.diff(edges) * content["continuum"]["index"])])
    continuum = np.exp(np.interp(np.log(REST_ANGSTROM), edges, level))
    lines = np.zeros_like(continuum)
    for line in content["lines"]:
        sigma = line["sigma_angstrom"]
        offset = (REST_ANGSTROM - line["wavelength_angstrom"]) / sigma
        height = line["equivalent_width_angstrom"] / (sigma * np.sqrt(2 * np.pi))
        lines += height * np.exp(-0.5 * offset**2)
    return np.asarray(continuum * (1.0 + lines))


def dust(e_b_v: float) -> Float64[np.ndarray, " w"]:
    """Transmission of a starburst's dust on `REST_ANGSTROM` (Calzetti et al. 2000, ApJ 533, 682,
    equation 4). e_b_v: reddening of the stars, mag."""
    micron = REST_ANGSTROM / 1e4
    inverse = 1.0 / micron
    blue = 2.659 * (-2.156 + 1.509 * inverse - 0.198 * inverse**2 + 0.011 * inverse**3) + 4.05
    red = 2.659 * (-1.857 + 1.040 * inverse) + 4.05
    k = np.maximum(np.where(micron < 0.63, blue, red), 0.0)
    return np.asarray(10.0 ** (-0.4 * e_b_v * k))


def intergalactic(redshift: float) -> Float64[np.ndarray, " w"]:
    """Mean transmission of the neutral gas before a source, on `REST_ANGSTROM`: lines of the
    Lyman series (Madau 1995, ApJ 441, 18, equation 15). The continuum's absorption lies below the
    Lyman limit, where the spectra are dark already."""
    observed = REST_ANGSTROM * (1.0 + redshift)
    depth = np.zeros_like(observed)
    for wavelength, strength in _LYMAN:
        before = wavelength > REST_ANGSTROM
        depth += np.where(before, strength * (observed / wavelength) ** 3.46, 0.0)
    return np.asarray(np.where(REST_ANGSTROM < _LYMAN_LIMIT, 0.0, np.exp(-depth)))


def ab_magnitudes(
    spectra: Float64[np.ndarray, "member w"],
    redshift: float,
    filters: Sequence[Passband],
) -> Float64[np.ndarray, "member band"]:
    """AB magnitudes, up to one constant, of rest-frame spectra f_lambda on `REST_ANGSTROM`.

    Photon-counting definition (Bessell & Murphy 2012, PASP 124, 140, equation A15): the flux
    density is the integral of f_lambda R lambda over that of R c / lambda.
    """
    observed = REST_ANGSTROM * (1.0 + redshift)
    seen = spectra * intergalactic(redshift) * observed**2
    weights = np.stack([band.response(observed) for band in filters], axis=1)
    flux = seen @ weights / _areas(filters)
    floor = _DARKEST * seen.mean(axis=1, keepdims=True)
    return np.asarray(-2.5 * np.log10(np.maximum(flux, floor)))


def _areas(filters: Sequence[Passband]) -> Float64[np.ndarray, " band"]:
    """Integral of R over ln wavelength, also where the spectrum does not reach the filter."""
    axis = np.exp(np.arange(np.log(500.0), np.log(60000.0), _STEP))
    return np.array([band.response(axis).sum() for band in filters])
