"""Straight lines on a pixel grid."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from jaxtyping import Float64


def along_and_across(
    shape: tuple[int, int], through: tuple[float, float], angle_rad: float
) -> tuple[Float64[np.ndarray, "y x"], Float64[np.ndarray, "y x"]]:
    """Position along a line and distance from it, in pixels; through (x, y) at position 0."""
    y, x = np.indices(shape).astype(np.float64)
    dx, dy = x - through[0], y - through[1]
    cos, sin = np.cos(angle_rad), np.sin(angle_rad)
    return dx * cos + dy * sin, dy * cos - dx * sin
