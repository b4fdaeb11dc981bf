from __future__ import annotations

import numpy as np
import pytest
from astropy.cosmology import FlatLambdaCDM
from hypothesis import given, settings
from hypothesis import strategies as st

from training.simulate import priors
from training.simulate.colours import measured_filters

GRI = measured_filters()


@settings(max_examples=15, deadline=None)
@given(sigma=st.floats(150, 400), z_lens=st.floats(0.1, 0.7), z_source=st.floats(0.8, 3.0))
def test_einstein_radius_is_that_of_astropys_distances(
    sigma: float, z_lens: float, z_source: float
) -> None:
    cosmology = FlatLambdaCDM(H0=70.0, Om0=0.3)
    lens, source = cosmology.comoving_distance([z_lens, z_source]).value
    ratio = 1.0 - lens / source  # D_ls / D_s in a flat universe
    expected = 4 * np.pi * (sigma / 299792.458) ** 2 * ratio * 206264.806
    assert priors.theta_e_arcsec(sigma, z_lens, z_source) == pytest.approx(expected, rel=1e-4)


def test_nothing_is_lensed_by_what_lies_behind_it() -> None:
    assert priors.theta_e_arcsec(300.0, 1.5, 1.0) == 0.0


@pytest.mark.parametrize("z", [0.1, 0.35, 0.7])
def test_distances_are_astropys(z: float) -> None:
    cosmology = FlatLambdaCDM(H0=70.0, Om0=0.3)
    modulus = float(cosmology.distmod(z).value)
    scale = float(cosmology.kpc_proper_per_arcmin(z).value) / 60
    assert priors.distance_modulus(z) == pytest.approx(modulus, abs=1e-3)
    assert priors.kpc_per_arcsec(z) == pytest.approx(scale, rel=1e-3)


def test_hosts_are_red_and_within_the_surveys_cuts() -> None:
    rng = np.random.default_rng(4)
    hosts = [priors.draw_host(rng, GRI) for _ in range(400)]
    i_mag = np.array([h.magnitudes["i"] for h in hosts])
    g_i = np.array([h.magnitudes["g"] - h.magnitudes["i"] for h in hosts])
    assert 15.0 < i_mag.min() <= i_mag.max() < 21.5
    assert np.mean((g_i > 1.2) & (g_i < 3.6)) > 0.95
    assert all(180 <= h.sigma_km_s <= 380 and 0.06 <= h.redshift <= 0.7 for h in hosts)
    # The red sequence reddens with redshift: by about 0.25 mag per 0.1 in g - i.
    assert np.corrcoef([h.redshift for h in hosts], g_i)[0, 1] > 0.9


def test_a_hosts_parts_add_up_to_its_magnitudes() -> None:
    rng = np.random.default_rng(5)
    for _ in range(30):
        host = priors.draw_host(rng, GRI)
        total = priors.combined([part.magnitudes for part in host.components])
        assert total == pytest.approx(dict(host.magnitudes), abs=1e-9)


def test_counts_stay_in_their_limits_and_rise() -> None:
    rng = np.random.default_rng(6)
    drawn = np.array([priors.counts(rng, 18.0, 22.0, slope=0.3) for _ in range(4000)])
    assert 18.0 <= drawn.min() <= drawn.max() <= 22.0
    ratio = np.sum(drawn > 21.0) / np.sum((drawn > 20.0) & (drawn <= 21.0))
    assert ratio == pytest.approx(10**0.3, rel=0.15)


def test_ellipticity_is_lenstronomys() -> None:
    from lenstronomy.Util.param_util import phi_q2_ellipticity

    assert priors.ellipticity_of(0.6, 0.4) == pytest.approx(phi_q2_ellipticity(0.4, 0.6))
