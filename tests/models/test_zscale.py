from __future__ import annotations

import numpy as np
import pytest
from astropy.visualization import ZScaleInterval
from jaxtyping import Float32

from lenspipe.models import zscale


def stamps(size: int, seed: int = 0) -> Float32[np.ndarray, "n band y x"]:
    """Noise, galaxies, whole numbers, two values, constants and missing pixels."""
    rng = np.random.default_rng(seed)
    y, x = np.indices((size, size)) - size / 2
    galaxy = 50.0 * np.exp(-0.5 * (x**2 + y**2) / 9.0)
    drawn = rng.normal(size=(10, 2, size, size)) + galaxy
    drawn[2] = np.round(drawn[2])
    drawn[3] = rng.random(drawn[3].shape) < 0.2
    drawn[4] = 7.25
    drawn[5, 0] = 0.0
    drawn[5, 0, 3, 3] = 5.0
    drawn[6, 0, 1, 1:5] = np.nan
    drawn[7, 1, 0, 0] = np.inf
    drawn[8] *= 1e5
    return np.asarray(drawn, np.float32)


@pytest.mark.parametrize("size", [7, 21, 40, 101])
@pytest.mark.parametrize(("contrast", "samples"), [(0.25, 1000), (0.1, 300)])
def test_limits_are_those_of_astropy(size: int, contrast: float, samples: int) -> None:
    """Both fit in float64; a line by another formula differs by roundings only."""
    flat = stamps(size).reshape(-1, size * size)
    astropy = ZScaleInterval(n_samples=samples, contrast=contrast)
    wanted = np.array([astropy.get_limits(row) for row in flat], np.float64)
    found = np.stack(zscale.limits(flat, contrast=contrast, samples=samples), axis=1)
    np.testing.assert_allclose(found, wanted, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("size", [21, 40])
def test_images_are_those_of_astropy(size: int) -> None:
    pixels = stamps(size)
    astropy = ZScaleInterval()
    wanted = np.array([[astropy(band) for band in row] for row in pixels])
    np.testing.assert_allclose(zscale.scale(pixels), wanted, atol=2e-6)


def test_an_image_without_a_pixel_is_nan() -> None:
    pixels = stamps(9)
    pixels[1, 1] = np.nan
    done = zscale.scale(pixels)
    assert np.isnan(done[1, 1]).all()
    assert np.isfinite(done[1, 0]).all()


def test_other_rows_change_nothing() -> None:
    pixels = stamps(21)
    np.testing.assert_array_equal(zscale.scale(pixels[:1]), zscale.scale(pixels)[:1])


def test_no_rows() -> None:
    assert zscale.scale(stamps(9)[:0]).shape == (0, 2, 9, 9)
