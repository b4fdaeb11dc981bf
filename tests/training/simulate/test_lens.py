from __future__ import annotations

import numpy as np
import pytest

from lenspipe.errors import InputError
from training.simulate import priors
from training.simulate.aim import Aim, Measure
from training.simulate.instrument import load_instrument
from training.simulate.lens import Visible, draw_lens
from training.simulate.observe import convolve, signal_to_noise, typical_conditions
from training.simulate.scene import Lens, render_arcs

PS1 = load_instrument("ps1")
SEEN = typical_conditions("ps1")


@pytest.fixture(scope="module")
def lenses() -> list[tuple[object, np.ndarray]]:
    rng = np.random.default_rng(21)
    visible = Visible(12.0, "g", (0.8, 3.0))
    return [draw_lens(rng, PS1, SEEN, visible=visible)[:2] for _ in range(12)]


def test_drawn_lenses_are_what_was_asked_for(lenses: list[tuple[object, np.ndarray]]) -> None:
    for scene, image in lenses:
        truth = scene.truth  # type: ignore[attr-defined] # a Scene
        assert truth["arc_snr_g"] >= 12.0
        assert 0.8 < truth["theta_e_arcsec"] < 3.0
        expected = priors.theta_e_arcsec(truth["sigma_v_km_s"], truth["z_lens"], truth["z_source"])
        assert truth["theta_e_arcsec"] == pytest.approx(expected)
        assert truth["magnification"] > 1.0
        assert image.shape == (3, 48, 48)


def test_the_truth_of_arcs_is_that_of_the_lens_that_is_returned(
    lenses: list[tuple[object, np.ndarray]],
) -> None:
    for scene, image in lenses:
        lens: Lens = scene.lens  # type: ignore[attr-defined]
        truth = scene.truth  # type: ignore[attr-defined]
        arcs = render_arcs(lens, PS1.bands, (48, 48), 0.25, 25.0)
        magnitudes = 25.0 - 2.5 * np.log10(arcs.sum(axis=(1, 2)))
        assert magnitudes == pytest.approx([truth[f"arc_mag_{b}"] for b in PS1.bands], abs=1e-3)
        snr = signal_to_noise(convolve(arcs, SEEN.psf), image, SEEN)
        assert snr == pytest.approx([truth[f"arc_snr_{b}"] for b in PS1.bands], rel=1e-2)


def test_arcs_are_bluer_than_their_hosts(lenses: list[tuple[object, np.ndarray]]) -> None:
    truths = [scene.truth for scene, _ in lenses]  # type: ignore[attr-defined]
    arcs = np.array([t["arc_mag_g"] - t["arc_mag_i"] for t in truths])
    totals = np.array([s.magnitudes["g"] - s.magnitudes["i"] for s, _ in lenses])  # type: ignore[attr-defined]
    assert np.mean(arcs < totals) > 0.9


def test_what_cannot_be_is_an_error_and_no_endless_loop() -> None:
    rng = np.random.default_rng(3)
    with pytest.raises(InputError, match="expected lenses of which one"):
        draw_lens(rng, PS1, SEEN, visible=Visible(10.0, "g", (5.0, 6.0)))


def drawn(aim: Aim, visible: Visible, seed: int = 4) -> tuple[object, np.ndarray]:
    return draw_lens(np.random.default_rng(seed), PS1, SEEN, visible=visible, aim=aim)[:2]


@pytest.mark.parametrize("theta_e", [0.7, 1.6, 3.1])
def test_an_einstein_radius_can_be_asked_for(theta_e: float) -> None:
    scene, _ = drawn(Aim(theta_e_arcsec=theta_e), Visible(10.0, "g"))
    truth = scene.truth  # type: ignore[attr-defined] # a Scene
    assert truth["theta_e_arcsec"] == theta_e
    expected = priors.theta_e_arcsec(truth["sigma_v_km_s"], truth["z_lens"], truth["z_source"])
    assert theta_e == pytest.approx(expected)


@pytest.mark.parametrize(
    ("measure", "value", "column"),
    [
        ("arc_snr", 17.0, "arc_snr_g"),
        ("arc_snr", 60.0, "arc_snr_g"),
        ("arc_mag", 21.5, "arc_mag_g"),
        ("alpha", 0.2, "source_lens_contrast_g"),
    ],
)
def test_a_brightness_can_be_asked_for(measure: Measure, value: float, column: str) -> None:
    scene, _ = drawn(Aim(brightness=(measure, value)), Visible(5.0, "g"))
    assert scene.truth[column] == pytest.approx(value, rel=5e-3)  # type: ignore[attr-defined]


@pytest.mark.parametrize("quad", [True, False])
def test_quads_can_be_asked_for(quad: bool) -> None:
    rng = np.random.default_rng(8)
    scenes = [
        draw_lens(rng, PS1, SEEN, visible=Visible(8.0, "g"), aim=Aim(quad=quad))[0]
        for _ in range(4)
    ]
    assert all((scene.truth["n_images"] >= 4) == quad for scene in scenes)


def test_a_slope_can_be_fixed() -> None:
    scene, _ = drawn(Aim(gamma=2.0), Visible(10.0, "g"))
    assert scene.truth["gamma"] == 2.0  # type: ignore[attr-defined]


def test_the_area_of_arcs_is_that_above_twice_the_noise(
    lenses: list[tuple[object, np.ndarray]],
) -> None:
    for scene, _ in lenses[:3]:
        truth = scene.truth  # type: ignore[attr-defined]
        blurred = convolve(render_arcs(scene.lens, PS1.bands, (48, 48), 0.25, 25.0), SEEN.psf)  # type: ignore[attr-defined]
        bright = int((blurred[0] > 2 * SEEN.sky_rms[0]).sum())
        assert truth["arc_area_arcsec2"] == pytest.approx(bright * 0.25**2, abs=0.2)
        assert truth["arc_area_2sigma_fraction"] == pytest.approx(bright / 48**2, abs=2e-3)
