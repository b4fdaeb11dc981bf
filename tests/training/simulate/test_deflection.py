from __future__ import annotations

import numpy as np
import pytest
from lenstronomy.LensModel.lens_model import LensModel

from training.simulate.deflection import epl, shoot


def grid() -> tuple[np.ndarray, np.ndarray]:
    axis = np.linspace(-4.0, 4.0, 41) + 0.013
    x, y = np.meshgrid(axis, axis)
    return x.ravel(), y.ravel()


def kormann(
    x: np.ndarray, y: np.ndarray, theta_e: float, q: float
) -> tuple[np.ndarray, np.ndarray]:
    """Singular isothermal ellipsoid, major axis along x: Kormann, Schneider & Bartelmann 1994
    (A&A 284, 285), equation 27a, scaled so that the critical curve encloses pi theta_e^2."""
    f = np.sqrt(1 - q**2)
    psi = np.sqrt(q**2 * x**2 + y**2)
    factor = theta_e * np.sqrt(q) / f
    return factor * np.arctan(f * x / psi), factor * np.arctanh(f * y / psi)


@pytest.mark.parametrize("q", [0.5, 0.7, 0.9])
@pytest.mark.parametrize("angle", [0.0, 0.7, 2.5])
def test_isothermal_deflection_is_kormanns(q: float, angle: float) -> None:
    x, y = grid()
    modulus = (1 - q) / (1 + q)
    mass = {
        "theta_E": 1.4,
        "gamma": 2.0,
        "e1": modulus * np.cos(2 * angle),
        "e2": modulus * np.sin(2 * angle),
        "center_x": 0.1,
        "center_y": -0.2,
    }
    dx, dy = x - 0.1, y + 0.2
    cos, sin = np.cos(angle), np.sin(angle)
    u, v = kormann(cos * dx + sin * dy, -sin * dx + cos * dy, 1.4, q)
    ax, ay = epl(x, y, mass)
    # The angular table is interpolated linearly: its error, not rounding, sets the tolerance.
    np.testing.assert_allclose(ax, cos * u - sin * v, atol=1e-6)
    np.testing.assert_allclose(ay, sin * u + cos * v, atol=1e-6)


@pytest.mark.parametrize("gamma", [1.7, 2.05, 2.4])
@pytest.mark.parametrize("q", [0.5, 0.98])
def test_power_law_with_shear_is_lenstronomys(gamma: float, q: float) -> None:
    x, y = grid()
    modulus = (1 - q) / (1 + q)
    power_law = {
        "theta_E": 1.2,
        "gamma": gamma,
        "e1": 0.6 * modulus,
        "e2": -0.8 * modulus,
        "center_x": 0.0,
        "center_y": 0.0,
    }
    shear = {"gamma1": 0.04, "gamma2": -0.02}
    expected = LensModel(["EPL", "SHEAR"]).ray_shooting(x, y, [power_law, shear])
    found = shoot((("EPL", power_law), ("SHEAR", shear)), x, y)
    # Interpolation between the angles of the table sets the tolerance, not rounding.
    np.testing.assert_allclose(found, expected, atol=1e-6)
