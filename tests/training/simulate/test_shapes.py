from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from lenstronomy.LightModel.Profiles.interpolation import Interpol

from training.simulate.shapes import surface_brightness


def summed(profile: str, parameters: dict[str, float], half: float, step: float) -> float:
    axis = np.arange(-half, half, step) + step / 2
    x, y = np.meshgrid(axis, axis)
    light = surface_brightness(profile, parameters, x.ravel(), y.ravel())
    return float(light.sum() * step**2)


@settings(max_examples=10, deadline=None)
@given(
    pitch=st.floats(0.2, 0.6),
    contrast=st.floats(0.0, 5.0),
    e1=st.floats(-0.3, 0.3),
    arms=st.integers(2, 4),
)
def test_arms_move_light_and_add_none(pitch: float, contrast: float, e1: float, arms: int) -> None:
    disc = {
        "scale_arcsec": 1.0,
        "arms": arms,
        "pitch_rad": pitch,
        "contrast": contrast,
        "start_rad": 0.4,
        "e1": e1,
        "e2": 0.1,
    }
    assert summed("SPIRAL_DISC", disc, 14.0, 0.05) == pytest.approx(1.0, abs=0.005)


@settings(max_examples=10, deadline=None)
@given(width=st.floats(0.1, 0.8), contrast=st.floats(0.0, 6.0), e2=st.floats(-0.3, 0.3))
def test_a_ring_has_unit_flux(width: float, contrast: float, e2: float) -> None:
    ring = {"radius_arcsec": 1.5, "width_arcsec": width, "contrast": contrast, "e1": 0.1, "e2": e2}
    assert summed("RING", ring, 8.0, 0.04) == pytest.approx(1.0, abs=0.002)


def test_arms_are_brighter_than_what_lies_between_them() -> None:
    disc = {"scale_arcsec": 1.0, "arms": 2, "pitch_rad": 0.3, "contrast": 2.0, "start_rad": 0.0}
    angle = np.linspace(0, 2 * np.pi, 400)
    around = surface_brightness("SPIRAL_DISC", disc, 2 * np.cos(angle), 2 * np.sin(angle))
    crossings = np.sum(np.diff(np.sign(around - around.mean())) != 0)
    assert around.max() / around.min() > 5
    assert crossings == 4


def test_a_stamp_is_lenstronomys_interpolated_image() -> None:
    rng = np.random.default_rng(2)
    image = rng.random((9, 9))
    keywords = {"scale": 0.3, "phi_G": 0.7, "center_x": 0.2, "center_y": -0.1}
    x, y = rng.uniform(-0.8, 0.8, (2, 200))
    expected = Interpol().function(x, y, image=image, amp=1.0, **keywords)
    found = surface_brightness("STAMP", {"image": image, **keywords}, x, y)
    np.testing.assert_allclose(found, expected / (image.sum() * 0.3**2), rtol=1e-6)
