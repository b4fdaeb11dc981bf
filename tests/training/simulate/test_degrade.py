"""A deeper survey's image in another instrument's seeing, pixels and noise."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from lenspipe.errors import InputError
from training.simulate.degrade import FWHM_PER_SIGMA, Taken, degrade, size_after
from training.simulate.hosts import degraded_hosts, load_hosts
from training.simulate.instrument import load_instrument
from training.simulate.observe import typical_conditions

INSTRUMENT = load_instrument("ps1")
DEEP = Taken(("g", "r", "i"), 0.2, 30.0, (0.7, 0.7, 0.7), (0.2, 0.2, 0.2))
SIDE = 121


def gaussian(fwhm_arcsec: float, pixel_scale_arcsec: float, flux: float, side: int) -> np.ndarray:
    y, x = np.mgrid[:side, :side] - (side - 1) / 2
    sigma = fwhm_arcsec / FWHM_PER_SIGMA / pixel_scale_arcsec
    image = np.exp(-0.5 * (x**2 + y**2) / sigma**2)
    return np.repeat((flux * image / image.sum())[None], 3, axis=0).astype(np.float32)


def test_flux_and_width_are_the_instruments() -> None:
    seen = typical_conditions("ps1")
    noiseless = replace(seen, sky_rms=np.zeros(3), electrons=np.full(3, 1e30))
    star = gaussian(0.7, 0.2, 10.0 ** (0.4 * (30.0 - 18.0)), SIDE)
    found = degrade(np.random.default_rng(1), star, DEEP, INSTRUMENT, noiseless)
    flux = 10.0 ** (0.4 * (INSTRUMENT.zero_point_mag - 18.0))
    assert found.shape == (3, 97, 97)
    np.testing.assert_allclose(found.sum(axis=(1, 2)), flux, rtol=2e-3)
    for k, fwhm in enumerate(seen.fwhm_arcsec):
        expected = gaussian(fwhm, INSTRUMENT.pixel_scale_arcsec, flux, 97)[0]
        np.testing.assert_allclose(found[k], expected, atol=0.01 * expected.max())


def test_empty_sky_has_the_instruments_noise() -> None:
    seen = typical_conditions("ps1")
    rng = np.random.default_rng(2)
    empty = (0.2 * rng.standard_normal((3, 241, 241))).astype(np.float32)
    found = degrade(rng, empty, DEEP, INSTRUMENT, seen)
    np.testing.assert_allclose(found.std(axis=(1, 2)), seen.sky_rms, rtol=0.05)


def test_a_sharper_target_is_not_deconvolved() -> None:
    seen = replace(typical_conditions("ps1"), fwhm_arcsec=np.full(3, 0.5), sky_rms=np.zeros(3))
    quiet = replace(seen, electrons=np.full(3, 1e30))
    star = gaussian(0.7, 0.25, 100.0, SIDE)
    taken = replace(DEEP, pixel_scale_arcsec=0.25, zero_point_mag=25.0)
    found = degrade(np.random.default_rng(3), star, taken, INSTRUMENT, quiet)
    np.testing.assert_allclose(found, star, atol=1e-5 * star.max())


def test_a_band_that_is_not_there_is_named() -> None:
    taken = replace(DEEP, bands=("g", "r", "z"))
    image = np.zeros((3, 50, 50), np.float32)
    with pytest.raises(InputError, match="bands: expected i among the image's, found g, r, z"):
        degrade(np.random.default_rng(0), image, taken, INSTRUMENT, typical_conditions("ps1"))


@pytest.mark.parametrize("pixels", [60, 61, 91])
def test_the_parity_of_the_side_stays(pixels: int) -> None:
    side = size_after(pixels, DEEP, INSTRUMENT)
    assert side % 2 == pixels % 2
    assert (side - 1) * INSTRUMENT.pixel_scale_arcsec <= (pixels - 1) * DEEP.pixel_scale_arcsec


@pytest.mark.data
def test_galaxies_of_another_survey_become_hosts(data: Path) -> None:
    own = load_hosts(data, load_instrument("des", INSTRUMENT.bands))
    made = degraded_hosts(data, "des", INSTRUMENT)
    again = degraded_hosts(data, "des", INSTRUMENT)
    deep = {host.name: host for host in own}
    assert 10 <= len(made) <= len(own)
    for host, same in zip(made, again, strict=True):
        before = deep[host.name]
        assert np.array_equal(host.frame, same.frame)
        assert host.sigma_km_s == before.sigma_km_s
        assert abs(host.magnitudes["i"] - before.magnitudes["i"]) < 0.15
