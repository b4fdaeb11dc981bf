from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from astropy.visualization import ZScaleInterval
from hypothesis import given, settings
from hypothesis import strategies as st
from jaxtyping import Float32, Float64

from lenspipe.models import normalise, zscale


def stamps(size: int, seed: int = 0) -> Float32[np.ndarray, "n band y x"]:
    """Noise, galaxies, whole numbers, two values, constants, missing and masked pixels."""
    rng = np.random.default_rng(seed)
    y, x = np.indices((size, size)) - size / 2
    galaxy = 50.0 * np.exp(-0.5 * (x**2 + y**2) / 9.0)
    drawn = rng.normal(size=(12, 2, size, size)) + galaxy
    drawn[2] = np.round(drawn[2])
    drawn[3] = rng.random(drawn[3].shape) < 0.2
    drawn[4] = 7.25
    drawn[5, 0] = 0.0
    drawn[5, 0, 3, 3] = 5.0
    drawn[6, 0, 1, 1:5] = np.nan
    drawn[7, 1, 0, 0] = np.inf
    drawn[8] *= 1e5
    drawn[9] *= 1e-12
    drawn[10] = drawn[10] * 1e-12
    drawn[10, 0, :3] = 100.0
    drawn[11, 0] = 0.1 * np.arange(size * size).reshape(size, size)
    return np.asarray(drawn, np.float32)


def limits_of_astropy(
    flat: Float32[np.ndarray, "n pixel"], **parameters: Any
) -> Float64[np.ndarray, "n 2"]:
    interval = ZScaleInterval(**parameters)
    with np.errstate(all="ignore"):  # of pixels near the largest float
        return np.array([interval.get_limits(row) for row in flat], np.float64)


def assert_limits(flat: np.ndarray, **parameters: Any) -> None:
    """Equal rejections, so what differs is the slope, by the roundings of its sums: some 1e-14 of
    the row's size over a step of one sample, times half the samples, over the contrast."""
    wanted = limits_of_astropy(flat, **parameters)
    found = np.stack(zscale.limits(flat, zscale.Fit(**parameters)), axis=1)
    finite = np.where(np.isfinite(flat), flat, 0.0)
    size = np.abs(finite.astype(np.float64)).max(axis=1)
    tolerance = 1e-13 * size / min(1.0, parameters.get("contrast", 0.25) or 1.0)
    assert (np.abs(found - wanted) <= tolerance[:, None]).all(), (found, wanted)


@pytest.mark.parametrize("size", [7, 21, 40, 101])
@pytest.mark.parametrize(("contrast", "n_samples"), [(0.25, 1000), (0.1, 300), (0.0, 50)])
def test_limits_are_those_of_astropy(size: int, contrast: float, n_samples: int) -> None:
    assert_limits(stamps(size).reshape(-1, size * size), contrast=contrast, n_samples=n_samples)


@pytest.mark.parametrize("size", [7, 21, 40, 101])
@pytest.mark.parametrize("kind", [np.float32, np.float64])
def test_images_are_those_of_astropy_to_the_last_bit(size: int, kind: type) -> None:
    """The limits' roundings are far below a float32's: they move no pixel here. In float64 they
    may move the last digits."""
    pixels: np.ndarray = stamps(size).astype(kind)
    astropy = ZScaleInterval()
    wanted = np.array([[astropy(band) for band in row] for row in pixels])
    found = zscale.scale(pixels)
    assert found.dtype == kind
    if kind is np.float32:
        np.testing.assert_array_equal(found, wanted)
    else:
        np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-11)


IMAGES = st.tuples(
    st.integers(1, 60),  # height
    st.integers(1, 60),  # width
    st.integers(0, 2**32 - 1),  # seed
    st.sampled_from([1e-38, 1e-12, 1.0, 1e4, 1e30]),  # amplitude
    st.sampled_from([0.0, 1.0, -3.0, 1e3]),  # pedestal over the amplitude
    st.sampled_from([0, 1, 8]),  # grey levels, 0: as drawn
    st.sampled_from([0.0, 0.01, 0.3, 1.0]),  # part that is NaN or infinite
    st.sampled_from([0.0, 0.05, 0.6]),  # part that is masked with 100
)


def image(drawn: tuple[int, int, int, float, float, int, float, float]) -> np.ndarray:
    height, width, seed, amplitude, pedestal, levels, holes, masked = drawn
    rng = np.random.default_rng(seed)
    made = rng.normal(size=(height, width)) + rng.exponential(size=(height, width)) ** 3
    made = np.round(made * levels) / levels if levels else made
    made = (made + pedestal) * amplitude
    made[rng.random(made.shape) < masked] = 100.0
    hole = rng.random(made.shape) < holes
    made[hole] = rng.choice([np.nan, np.inf, -np.inf], size=int(hole.sum()))
    return made.astype(np.float32)


@settings(max_examples=60, deadline=None)
@given(
    drawn=IMAGES,
    parameters=st.fixed_dictionaries(
        {
            "contrast": st.sampled_from([0.0, 0.01, 0.25, 1.0, 2.0]),
            "n_samples": st.sampled_from([2, 10, 99, 1000, 10_000]),
            "max_reject": st.sampled_from([0.0, 0.5, 1.0]),
            "min_npixels": st.sampled_from([2, 5, 400]),
            "krej": st.sampled_from([0.5, 1.0, 2.5, 10.0]),
            "max_iterations": st.integers(1, 9),
        }
    ),
)
def test_any_image_with_any_parameters(
    drawn: tuple[int, int, int, float, float, int, float, float], parameters: dict[str, Any]
) -> None:
    pixels = image(drawn)
    flat = pixels.reshape(1, -1)
    if not np.isfinite(flat).any():
        assert np.isnan(zscale.scale(pixels[None, None], zscale.Fit(**parameters))).all()
        return
    assert_limits(flat, **parameters)
    with np.errstate(all="ignore"):
        wanted = ZScaleInterval(**parameters)(pixels)
    found = zscale.scale(pixels[None, None], zscale.Fit(**parameters))[0, 0]
    # A limit that falls on the border between two float32 may go to either.
    np.testing.assert_allclose(found, wanted, rtol=3e-7, atol=3e-7)


def test_an_image_without_a_pixel_is_nan() -> None:
    pixels = stamps(9)
    pixels[1, 1] = np.nan
    done = zscale.scale(pixels)
    assert np.isnan(done[1, 1]).all()
    assert np.isfinite(done[1, 0]).all()


def test_other_rows_change_nothing() -> None:
    """Beyond roundings of the sums' order, which are no float32's."""
    pixels = stamps(40)
    together = zscale.scale(pixels)
    for row in range(len(pixels)):
        np.testing.assert_array_equal(zscale.scale(pixels[row : row + 1]), together[row : row + 1])


def test_astropy_is_asked_for_degenerate_rows_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[np.ndarray] = []

    def ask(row: np.ndarray, fit: zscale.Fit) -> tuple[float, float, float]:
        asked.append(row)
        return wanted(row, fit)

    wanted = zscale._astropy_limits
    monkeypatch.setattr(zscale, "_astropy_limits", ask)
    rng = np.random.default_rng(3)
    zscale.scale(rng.normal(size=(500, 1, 31, 31)).astype(np.float32))
    zscale.scale(np.zeros((50, 1, 31, 31), np.float32))
    assert not asked
    zscale.scale(stamps(21)[4:5])
    assert len(asked) == 2


def test_no_rows() -> None:
    assert zscale.scale(stamps(9)[:0]).shape == (0, 2, 9, 9)


def test_the_card_reaches_every_parameter() -> None:
    pixels = stamps(21)[:2]
    parameters = {"contrast": 0.4, "samples": 200, "max_reject": 0.3, "min_pixels": 9, "krej": 1.5}
    found = normalise.apply("zscale", {**parameters, "max_iterations": 2}, pixels, np)
    astropy = ZScaleInterval(200, 0.4, 0.3, 9, 1.5, 2)
    wanted = np.array([[astropy(band) for band in row] for row in pixels])
    np.testing.assert_array_equal(found, wanted)
    assert not np.array_equal(found, normalise.apply("zscale", {}, pixels, np))
