"""Ray shooting; the elliptical power law by a table over angle, all else by lenstronomy.

The angular factor of the power law's deflection, a hypergeometric function, depends on the angle
alone. Its series is summed by one Fourier transform per lens, for less than what a few hundred
rays cost when it is evaluated ray by ray.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np
from lenstronomy.LensModel.lens_model import LensModel

if TYPE_CHECKING:
    from jaxtyping import Complex128, Float64

# Steps over half a turn. Linear interpolation between them is right to 1e-7 of the Einstein radius.
_ANGLES = 8192
# Terms of the series that are smaller than this are left out.
_SMALLEST_TERM = 1e-14

Mass = Sequence[tuple[str, Mapping[str, Any]]]


@lru_cache(maxsize=16)
def _lenstronomy(name: str) -> LensModel:
    return LensModel([name])


@lru_cache(maxsize=8)
def _factor_table(
    q: float, t: float
) -> tuple[Complex128[np.ndarray, " angle"], Complex128[np.ndarray, " angle"]]:
    """2F1(1, t/2; 2 - t/2; -f exp(i turn)), f = (1 - q) / (1 + q), over a whole turn, and the step
    to each value's successor.

    The coefficients of exp(i n turn) are (t/2)_n / (2 - t/2)_n (-f)^n.
    """
    f = (1.0 - q) / (1.0 + q)
    terms = 2 if f < _SMALLEST_TERM else int(np.ceil(np.log(_SMALLEST_TERM) / np.log(f))) + 1
    n = np.arange(min(terms, _ANGLES) - 1)
    ratios = -f * (0.5 * t + n) / (2.0 - 0.5 * t + n)
    series = np.zeros(_ANGLES, dtype=np.complex128)
    series[: len(n) + 1] = np.concatenate([[1.0], np.cumprod(ratios)])
    table = np.fft.ifft(series) * _ANGLES
    return table, np.roll(table, -1) - table


def _angular_factor(
    z: Complex128[np.ndarray, " n"], q: float, t: float
) -> Complex128[np.ndarray, " n"]:
    """The factor at each ray's angle: z / conj z turns twice as fast as z."""
    position = np.angle(z) * (_ANGLES / np.pi)
    below = np.floor(position)
    nearest = below.astype(np.int64) % _ANGLES
    table, step = _factor_table(q, t)
    return np.asarray(table[nearest] + (position - below) * step[nearest])


def epl(
    x: Float64[np.ndarray, " n"], y: Float64[np.ndarray, " n"], keywords: Mapping[str, float]
) -> tuple[Float64[np.ndarray, " n"], Float64[np.ndarray, " n"]]:
    """Deflection (arcsec) of the elliptical power law in lenstronomy's conventions.

    Tessore & Metcalf 2015 (arXiv:1507.01819), equations 5, 22 and 23.
    """
    e1, e2, t = keywords["e1"], keywords["e2"], keywords["gamma"] - 1.0
    modulus = min(float(np.hypot(e1, e2)), 0.9999)
    q, turned = (1 - modulus) / (1 + modulus), np.exp(0.5j * np.arctan2(e2, e1))
    b = keywords["theta_E"] * np.sqrt(q)
    w = (x - keywords["center_x"] + 1j * (y - keywords["center_y"])) * np.conj(turned)
    z = q * w.real + 1j * w.imag
    radius = np.maximum(np.abs(z), 1e-9)
    alpha = 2.0 / (1.0 + q) * (b / radius) ** t * z * _angular_factor(z, q, t) * turned
    return alpha.real, alpha.imag


def shoot(
    mass: Mass, x: Float64[np.ndarray, " n"], y: Float64[np.ndarray, " n"]
) -> tuple[Float64[np.ndarray, " n"], Float64[np.ndarray, " n"]]:
    """Where rays at (x, y) arcsec of the image meet the source plane, one lens plane."""
    bx, by = x, y
    for name, keywords in mass:
        if name == "EPL":
            ax, ay = epl(x, y, keywords)
        else:
            ax, ay = _lenstronomy(name).alpha(x, y, [dict(keywords)])
        bx, by = bx - ax, by - ay
    return bx, by
