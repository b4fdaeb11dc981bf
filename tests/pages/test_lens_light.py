from __future__ import annotations

import numpy as np
import pytest

from lenspipe.pages.lens_light import subtract_lens_light

SIZE = 48


def galaxy(axis_ratio: float, angle_deg: float, x0: float = 0.0, y0: float = 0.0) -> np.ndarray:
    """An exponential profile of scale 3 pixels, peak 1."""
    y, x = np.mgrid[:SIZE, :SIZE] - (SIZE - 1) / 2
    x, y = x - x0, y - y0
    angle = np.radians(angle_deg)
    u, v = x * np.cos(angle) + y * np.sin(angle), -x * np.sin(angle) + y * np.cos(angle)
    return np.asarray(np.exp(-np.hypot(u * np.sqrt(axis_ratio), v / np.sqrt(axis_ratio)) / 3.0))


def arc(radius: float = 9.0) -> np.ndarray:
    y, x = np.mgrid[:SIZE, :SIZE] - (SIZE - 1) / 2
    ring = np.exp(-0.5 * ((np.hypot(x, y) - radius) / 1.2) ** 2)
    return np.asarray(0.1 * ring * (np.abs(np.arctan2(y, x)) < 0.7))


@pytest.mark.parametrize(
    ("axis_ratio", "angle_deg", "x0", "y0"),
    [(1.0, 0, 0, 0), (0.7, 30, 0.4, -0.3), (0.5, 100, 0, 0), (0.8, 170, -2.0, 1.5)],
)
def test_the_galaxy_goes_and_the_arc_stays(
    axis_ratio: float, angle_deg: float, x0: float, y0: float
) -> None:
    light, lensed = galaxy(axis_ratio, angle_deg, x0, y0), arc()
    rng = np.random.default_rng(1)
    noise = rng.normal(0, 0.002, (2, SIZE, SIZE))
    pixels = np.stack([0.3 * light + lensed, light + 0.2 * lensed]) + noise
    left = subtract_lens_light(pixels.astype(np.float32))
    y, x = np.mgrid[:SIZE, :SIZE] - (SIZE - 1) / 2
    outside = (np.hypot(x - x0, y - y0) > 3) & (lensed < 1e-4)
    # Of the galaxy's light outside its core, little is left beside the noise ...
    assert np.abs(left[0][outside]).mean() < 0.006
    # ... and of the arc's, nearly all.
    on_arc = lensed > 0.05
    assert left[0][on_arc].mean() == pytest.approx(lensed[on_arc].mean(), rel=0.15)


def test_unknown_pixels_stay_unknown() -> None:
    pixels = np.stack([galaxy(0.8, 20)] * 3).astype(np.float32)
    pixels[:, 10:14, 20:30] = np.nan
    left = subtract_lens_light(pixels)
    assert np.array_equal(np.isnan(left), np.isnan(pixels))


@pytest.mark.parametrize("fill", [np.nan, 0.0, 5.0, -1.0])
def test_a_stamp_of_nothing_is_no_error(fill: float) -> None:
    pixels = np.full((3, SIZE, SIZE), fill, np.float32)
    left = subtract_lens_light(pixels)
    assert left.shape == pixels.shape
    assert np.all(np.isnan(left)) if np.isnan(fill) else np.allclose(left, 0)
