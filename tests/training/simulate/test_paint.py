from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from training.simulate.instrument import load_instrument
from training.simulate.lens import Visible
from training.simulate.observe import typical_conditions
from training.simulate.paint import crop, paint, painted_lens, real_negative
from training.simulate.real import RealHost
from training.simulate.scene import Component, render_light

PS1 = load_instrument("ps1")
SEEN = typical_conditions("ps1")


@pytest.fixture
def host() -> RealHost:
    magnitudes = {"g": 20.2, "r": 18.9, "i": 18.3}
    parameters = {
        "R_sersic": 1.2,
        "n_sersic": 4.0,
        "e1": 0.2,
        "e2": 0.1,
        "center_x": 0.0,
        "center_y": 0.0,
    }
    component = Component("SERSIC_ELLIPSE", parameters, magnitudes)
    frame = render_light([component], PS1.bands, (120, 120), 0.25, 25.0)
    frame += np.random.default_rng(1).normal(0, 0.1, frame.shape).astype(np.float32)
    return RealHost(
        "a galaxy",
        frame,
        (59.5, 59.5),
        np.array([[40, 70], [3, 3]]),
        magnitudes,
        1.2,
        (0.2, 0.1),
        0.3,
        np.array([0.09, 0.11, 0.13]),
        SEEN.electrons,
    )


def test_painting_leaves_the_pixels_outside_the_arc_alone() -> None:
    rng = np.random.default_rng(2)
    image = rng.normal(0, 0.1, (3, 48, 48)).astype(np.float32)
    arcs = np.zeros_like(image)
    arcs[:, 10:14, 20:30] = 2.0
    arcs[:, 30, 30] = 1e-4  # light that nobody could see
    painted = paint(rng, image, arcs, SEEN)
    touched = arcs > 1e-3
    np.testing.assert_array_equal(painted[~touched], image[~touched])
    assert (painted - image)[touched].mean() == pytest.approx(2.0, abs=0.05)


def test_painted_light_has_its_own_poisson_noise() -> None:
    image = np.zeros((3, 300, 300), dtype=np.float32)
    arcs = np.full_like(image, 40.0)
    painted = paint(np.random.default_rng(3), image, arcs, SEEN)
    np.testing.assert_allclose(painted.std(axis=(1, 2)), np.sqrt(40.0 / SEEN.electrons), rtol=0.02)


def test_a_painted_lens_is_its_host_plus_arcs(host: RealHost) -> None:
    made = painted_lens(
        np.random.default_rng(4),
        host,
        PS1,
        visible=Visible(10.0),
        size_pixels=48,
        max_shift_pixels=2,
    )
    assert made is not None
    image, arcs, seen = made.image, made.arcs, made.seen
    assert arcs.truth["arc_snr_g"] >= 10.0
    assert image.shape == (3, 48, 48)
    assert seen.sky_rms is host.sky_rms
    outside = arcs.blurred < 0.02 * host.sky_rms[:, None, None]
    remaining = (image - arcs.blurred)[~outside]
    assert outside.any()
    # Off the arcs each value is one of the frame's own, bit for bit.
    assert np.isin(image[outside], host.frame).all()
    assert np.isfinite(remaining).all()


def test_a_host_too_light_to_lens_is_refused(host: RealHost) -> None:
    faint = replace(host, magnitudes={"g": 26.0, "r": 25.0, "i": 24.5})
    made = painted_lens(
        np.random.default_rng(5),
        faint,
        PS1,
        visible=Visible(10.0, "g", (2.0, 3.5)),
        size_pixels=48,
        max_shift_pixels=0,
    )
    assert made is None


@pytest.mark.parametrize("seed", range(12))
def test_a_crop_follows_its_galaxy_through_every_symmetry(host: RealHost, seed: int) -> None:
    cut = crop(np.random.default_rng(seed), host, host.centre, 48, 3)
    y, x = np.mgrid[:48, :48]
    light = np.maximum(cut.image[2], 0) * (np.hypot(x - cut.centre[0], y - cut.centre[1]) < 12)
    assert (light * x).sum() / light.sum() == pytest.approx(cut.centre[0], abs=0.15)
    assert (light * y).sum() / light.sum() == pytest.approx(cut.centre[1], abs=0.15)
    dx, dy = x - cut.centre[0], y - cut.centre[1]
    e1, e2 = (light * (dx**2 - dy**2)).sum(), (light * 2 * dx * dy).sum()
    assert np.sign(e1) == np.sign(cut.shape[0])
    assert np.sign(e2) == np.sign(cut.shape[1])


def test_neighbours_too_near_the_edge_are_never_cut_out(host: RealHost) -> None:
    rng = np.random.default_rng(6)
    others = [real_negative(rng, host, 48, 2) for _ in range(60)]
    assert {other for _, other in others} == {True, False}
    alone = replace(host, neighbours=np.array([[3, 3]]))
    assert not any(real_negative(rng, alone, 48, 2)[1] for _ in range(30))
