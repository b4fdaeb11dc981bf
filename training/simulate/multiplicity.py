"""How many images a lens makes of a point, by triangles that are followed to the source plane."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np

from training.simulate.deflection import Mass, shoot

if TYPE_CHECKING:
    from jaxtyping import Bool, Float64

# Half-width of the searched square and side of its cells, in Einstein radii. No image of a source
# within an Einstein radius of the axis lies farther out.
_REACH = 2.5
_CELL = 0.05
# An image is counted from this magnification on: what is fainter, as the central image of a
# shallow profile, nobody sees.
MIN_MAGNIFICATION = 0.1
# Deflections of singular profiles turn round here (Einstein radii), where no image forms.
_CENTRE = 0.08


@lru_cache(maxsize=1)
def _axis() -> Float64[np.ndarray, " n"]:
    half = round(_REACH / _CELL)
    return (np.arange(-half, half) + 0.5) * _CELL


def _cross(
    a: Float64[np.ndarray, "axis y x"],
    b: Float64[np.ndarray, "axis y x"],
    c: Float64[np.ndarray, "axis y x"],
) -> Float64[np.ndarray, "y x"]:
    """Twice the signed area of triangle a b c."""
    return np.asarray((b[0] - a[0]) * (c[1] - a[1]) - (b[1] - a[1]) * (c[0] - a[0]))


def _holds(
    corners: tuple[Float64[np.ndarray, "axis y x"], ...],
    point: Float64[np.ndarray, "axis y x"],
    cell_area: float,
) -> Bool[np.ndarray, "y x"]:
    """Triangles of the source plane that hold the point and whose image is bright enough."""
    a, b, c = corners
    sides = (_cross(a, b, point), _cross(b, c, point), _cross(c, a, point))
    inside = ((sides[0] >= 0) == (sides[1] >= 0)) & ((sides[1] >= 0) == (sides[2] >= 0))
    magnification = cell_area / np.maximum(np.abs(_cross(a, b, c)), 1e-30)
    return np.asarray(inside & (magnification > MIN_MAGNIFICATION))


def count_images(mass: Mass, theta_e_arcsec: float, x_arcsec: float, y_arcsec: float) -> int:
    """Images of a point at (x, y) of the source plane that are magnified more than 0.1 times.

    Keeton 2001 (astro-ph/0102340), section 2: cells of the image plane, halved into triangles, are
    mapped to the source plane; each that holds the source holds an image. Two images within one
    cell of 0.05 Einstein radii, as of a source that touches a caustic, are missed. The lens must
    lie at the origin.
    """
    axis = _axis() * theta_e_arcsec
    xx, yy = np.meshgrid(axis, axis)
    beta = np.stack(shoot(mass, xx.ravel(), yy.ravel())).reshape(2, *xx.shape)
    low, right = beta[:, :-1, :-1], beta[:, :-1, 1:]
    up, far = beta[:, 1:, :-1], beta[:, 1:, 1:]
    point = np.broadcast_to(np.array([x_arcsec, y_arcsec])[:, None, None], low.shape)
    area = (_CELL * theta_e_arcsec) ** 2
    middle = axis[:-1] + 0.5 * _CELL * theta_e_arcsec
    away = np.hypot(middle, middle[:, None]) > _CENTRE * theta_e_arcsec
    halves = ((low, right, far), (low, far, up))
    return int(sum((_holds(corners, point, area) & away).sum() for corners in halves))
