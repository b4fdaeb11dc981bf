from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from jaxtyping import Float32

from lenspipe.pages.colour import asinh_rgb, band_weights

SIZE = 31


def galaxy(
    fluxes: list[float], noise: float = 1.0, seed: int = 0
) -> Float32[np.ndarray, "band y x"]:
    y, x = np.mgrid[0:SIZE, 0:SIZE] - SIZE // 2
    light = np.exp(-(np.hypot(x, y) ** 2) / 20)
    drawn = np.random.default_rng(seed).normal(0, noise, (len(fluxes), SIZE, SIZE))
    return np.asarray(np.array(fluxes)[:, None, None] * light + drawn, np.float32)


def test_the_last_band_is_red_and_the_first_blue() -> None:
    centre = SIZE // 2
    even = np.ones(3)
    red = asinh_rgb(galaxy([10, 50, 200]), even)[centre, centre].astype(int)
    blue = asinh_rgb(galaxy([200, 50, 10]), even)[centre, centre].astype(int)
    assert red[0] > red[1] > red[2]
    assert blue[2] > blue[1] > blue[0]


def test_one_band_is_grey_and_two_are_enough() -> None:
    grey = asinh_rgb(galaxy([80]), np.ones(1))
    assert np.array_equal(grey[..., 0], grey[..., 2])
    assert asinh_rgb(galaxy([80, 90]), np.ones(2)).shape == (SIZE, SIZE, 3)


def test_the_picture_is_the_right_way_up() -> None:
    pixels = galaxy([0, 0, 0])
    pixels[:, 2, 5] += 500
    picture = asinh_rgb(pixels, np.ones(3))
    assert np.unravel_index(picture.sum(axis=-1).argmax(), (SIZE, SIZE)) == (SIZE - 3, 5)


def test_a_faint_arc_is_seen_beside_a_bright_core() -> None:
    pixels = galaxy([5000, 5000, 5000])
    pixels[:, 25, 10:20] += 15
    picture = asinh_rgb(pixels, np.ones(3)).astype(int)
    arc, sky = picture[SIZE - 26, 10:20].mean(), picture[0, 10:20].mean()
    assert arc > sky + 30


@given(st.floats(0, 1e6), st.floats(0, 1e4), st.booleans())
@settings(max_examples=30, deadline=None)
def test_any_pixels_give_a_picture(flux: float, noise: float, holes: bool) -> None:
    pixels = galaxy([flux, -flux, flux / 2], noise)
    if holes:
        pixels[:, ::2] = np.nan
    assert asinh_rgb(pixels, band_weights(pixels[None])).dtype == np.uint8


def test_weights_bring_a_red_set_nearer_to_white() -> None:
    images = np.stack([galaxy([10, 40, 160], 0.1, seed) for seed in range(5)])
    images[2] = np.nan
    weights = band_weights(images)
    assert weights[0] > weights[1] > weights[2] > 0
    assert np.all(band_weights(np.full((2, 3, 4, 4), np.nan, np.float32)) == 1)
