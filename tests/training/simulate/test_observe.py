from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from lenstronomy.SimulationAPI.observation_api import SingleBand
from scipy.signal import fftconvolve

from lenspipe.errors import InputError
from training.simulate.instrument import (
    ONLY_GRID,
    Instrument,
    load_instrument,
    parse_instrument,
)
from training.simulate.observe import (
    add_noise,
    add_points,
    convolve,
    draw_conditions,
    psf_image,
    saturate,
    signal_to_noise,
    sky_noise,
    typical_conditions,
)
from training.simulate.scene import Component, Scene
from training.simulate.views import Placed, views_of

PS1 = load_instrument("ps1")


def test_an_unknown_instrument_lists_what_there_is() -> None:
    with pytest.raises(InputError, match=r"instrument: expected one of .*ps1.*'hubble'"):
        load_instrument("hubble")


@pytest.mark.parametrize(
    ("change", "where"),
    [
        ({"colour": 1}, "colour"),
        ({"pixel_scale_arcsec": -1.0}, "pixel_scale_arcsec"),
        ({"bands": ["g", "r"]}, "psf of bands"),
        ({"noise_correlation": [[0.9]]}, "noise_correlation"),
    ],
)
def test_a_wrong_instrument_is_refused_by_key(change: dict[str, object], where: str) -> None:
    with pytest.raises(InputError, match=where):
        parse_instrument({**PS1.model_dump(), **change}, "ps1.yaml")


@pytest.mark.parametrize("fwhm", [0.9, 1.3])
def test_psf_has_its_width_and_unit_flux(fwhm: float) -> None:
    psf = psf_image(fwhm, 3.0, 0.05, size_pixels=201)
    profile = psf[100] / psf.max()
    width = np.sum(profile > 0.5) * 0.05
    assert psf.sum() == pytest.approx(1.0, abs=1e-5)
    assert width == pytest.approx(fwhm, abs=0.06)


def test_convolution_is_scipys() -> None:
    rng = np.random.default_rng(1)
    image = rng.random((3, 48, 40)).astype(np.float32)
    psf = typical_conditions("ps1").psf
    expected = [fftconvolve(b, k, mode="same") for b, k in zip(image, psf, strict=True)]
    np.testing.assert_allclose(convolve(image, psf), expected, atol=2e-5)


def test_a_star_is_where_it_should_be_with_its_flux() -> None:
    image = np.zeros((3, 61, 61), dtype=np.float32)
    fluxes = np.array([10.0, 20.0, 30.0])
    add_points(image, typical_conditions("ps1").psf, [(30.4, 27.8, fluxes)])
    np.testing.assert_allclose(image.sum(axis=(1, 2)), fluxes, rtol=1e-4)
    y, x = np.mgrid[:61, :61]
    assert (image[2] * x).sum() / image[2].sum() == pytest.approx(30.4, abs=0.01)
    assert (image[2] * y).sum() / image[2].sum() == pytest.approx(27.8, abs=0.01)


def test_a_star_beyond_the_edge_leaves_its_wing_only() -> None:
    image = np.zeros((3, 30, 30), dtype=np.float32)
    psf = typical_conditions("ps1").psf
    add_points(image, psf, [(-3.0, 15.0, np.ones(3)), (-80.0, 5.0, np.ones(3))])
    assert 0.0 < image[0].sum() < 0.5
    assert image[0, :, 0].sum() > image[0, :, 5].sum()


def test_sky_noise_has_unit_rms_and_the_measured_correlation() -> None:
    noise = sky_noise(np.random.default_rng(3), PS1, (3, 600, 600)).astype(np.float64)
    assert noise.std() == pytest.approx(1.0, abs=0.01)
    lag = {
        (0, 1): np.mean(noise[:, :, 1:] * noise[:, :, :-1]),
        (1, 0): np.mean(noise[:, 1:] * noise[:, :-1]),
        (1, 1): np.mean(noise[:, 1:, 1:] * noise[:, :-1, :-1]),
        (0, 3): np.mean(noise[:, :, 3:] * noise[:, :, :-3]),
    }
    for (row, column), found in lag.items():
        inside = row < 3 and column < 3
        expected = PS1.noise_correlation[row][column] if inside else 0.0
        assert found == pytest.approx(expected, abs=0.01)


@pytest.mark.parametrize("level", [0.0, 2.0, 50.0])
def test_noise_is_lenstronomys_for_the_same_observation(level: float) -> None:
    seen = typical_conditions("ps1")
    image = np.full((3, 300, 300), level, dtype=np.float32)
    noise = add_noise(np.random.default_rng(7), image, PS1, seen) - image
    for k, band in enumerate(PS1.bands):
        # lenstronomy counts electrons per second: a flux unit is `gain` of them.
        gain, seconds = PS1.noise[band].gain, PS1.noise[band].exposure_s
        observation = SingleBand(
            pixel_scale=0.25,
            exposure_time=seconds,
            magnitude_zero_point=25.0,
            background_noise=float(seen.sky_rms[k]) * gain,
            data_count_unit="e-",
        )
        expected = observation.estimate_noise(np.array([[level * gain]]))[0, 0] / gain
        # 90,000 correlated pixels give the rms to about 0.4%.
        assert noise[k].std() == pytest.approx(expected, rel=0.015)


def test_noise_levels_scatter_from_image_to_image_as_measured() -> None:
    rng = np.random.default_rng(11)
    drawn = [draw_conditions(rng, PS1) for _ in range(300)]
    dex = np.log10([c.sky_rms for c in drawn])
    stated = np.log10([PS1.sky_rms(b) for b in PS1.bands])
    np.testing.assert_allclose(np.median(dex, axis=0), stated, atol=0.02)
    scatter = [PS1.noise[b].scatter_dex for b in PS1.bands]
    np.testing.assert_allclose(dex.std(axis=0), scatter, rtol=0.15)
    assert all(c.psf.sum(axis=(1, 2)) == pytest.approx([1, 1, 1], abs=1e-4) for c in drawn)


def test_full_pixels_spill_along_their_column_and_keep_the_charge() -> None:
    image = np.zeros((1, 41, 9), dtype=np.float32)
    image[0, 20, 4] = 1000.0
    bled = saturate(image, 100.0)
    assert bled.max() <= 100.0
    assert bled.sum() == pytest.approx(1000.0)
    assert np.flatnonzero(bled[0].any(axis=0)).tolist() == [4]
    assert np.count_nonzero(bled) == 10 or np.count_nonzero(bled) == 11


def test_signal_to_noise_is_the_matched_filters_over_what_stands_out() -> None:
    seen = replace(typical_conditions("ps1"), sky_rms=np.array([0.1, 0.1, 0.1]))
    signal = np.zeros((3, 8, 8), dtype=np.float32)
    signal[:, 2, 2], signal[:, 5, 5] = 1.0, 0.04  # the second lies under half of the rms
    signal[:, 6, 2] = 1.0
    host = np.zeros_like(signal)
    host[:, 6, 2] = 5.0  # and the third under a quarter of the host
    variance = 0.01 + 1.0 / seen.electrons
    found = signal_to_noise(signal, signal + host, seen)
    np.testing.assert_allclose(found, 1.0 / np.sqrt(variance), rtol=1e-6)


def test_the_depth_is_that_of_the_survey() -> None:
    """5 sigma of a point source: Chambers et al. 2016 give 23.3, 23.2, 23.1 for g, r, i."""
    seen = typical_conditions("ps1")
    table = np.array(PS1.noise_correlation)
    weight = np.array([1.0, 2.0, 2.0])
    correlated = float((table * np.outer(weight, weight)).sum())
    effective = 1.0 / (seen.psf.astype(np.float64) ** 2).sum(axis=(1, 2))
    limit = 25.0 - 2.5 * np.log10(5.0 * seen.sky_rms * np.sqrt(effective * correlated))
    # The noise's power at large scales stands in for that at the PSF's: up to 0.3 mag shallower.
    np.testing.assert_allclose(limit, [23.3, 23.2, 23.1], atol=0.35)


def test_instruments_are_frozen() -> None:
    assert isinstance(PS1, Instrument)
    with pytest.raises(ValueError, match="frozen"):
        PS1.zero_point_mag = 27.0  # type: ignore[misc] # what is being tested


@pytest.mark.parametrize("instrument", ["ps1", "hsc", "hst-f160w"])
@pytest.mark.parametrize("place", [0.0, 3.0, -2.0])
def test_light_at_the_edge_of_a_stamp_is_that_of_a_larger_one(
    instrument: str, place: float
) -> None:
    """A galaxy on, near and beyond the edge; what stays out is a hundredth of the PSF's light."""
    [view] = views_of({ONLY_GRID: load_instrument(instrument)}, 48, None)
    seen = draw_conditions(np.random.default_rng(1), view.instrument)
    magnitudes = dict.fromkeys(view.instrument.bands, 19.0)
    shape = {"R_sersic": 1.0, "n_sersic": 1.0, "center_x": 0.0, "center_y": 0.0}
    galaxy = Scene("spiral", (Component("SERSIC", shape, magnitudes),), magnitudes, 1.0)
    extra = 40
    wide = replace(view, size_pixels=48 + 2 * extra)
    larger = wide.neighbours([Placed(galaxy, (place + extra, 24.0 + extra))], seen)
    expected = larger[:, extra:-extra, extra:-extra]
    found = view.neighbours([Placed(galaxy, (place, 24.0))], seen)
    assert np.abs(found - expected).max() < 2e-3 * larger.max()
    assert np.abs(view.light(galaxy, seen, (place, 24.0)) - expected).max() < 2e-3 * larger.max()
