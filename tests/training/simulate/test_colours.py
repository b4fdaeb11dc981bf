from __future__ import annotations

import numpy as np
import pytest
from astropy import constants, units

from lenspipe.errors import InputError
from training.simulate import colours, sed
from training.simulate.passband import Passband

GRI = colours.measured_filters()
# Bands of other surveys between and beyond Pan-STARRS g, r, i.
OTHERS = {
    "u": Passband(blue_angstrom=3226, red_angstrom=4221),
    "g": Passband(blue_angstrom=4101, red_angstrom=5517),
    "z": Passband(blue_angstrom=8500, red_angstrom=9313),
    "H": Passband(blue_angstrom=15224, red_angstrom=20257),
}


def gri(kind: str, z: float) -> np.ndarray:
    """Synthetic (g - r, r - i) of every spectrum of a kind, not warped."""
    magnitudes = colours.synthetic(kind, z, GRI)[:, 3:]
    return np.stack([magnitudes[:, 0] - magnitudes[:, 1], magnitudes[:, 1] - magnitudes[:, 2]])


@pytest.mark.parametrize("z", [0.1, 0.2, 0.3, 0.4, 0.5, 0.6])
def test_an_elliptical_has_the_colours_of_real_red_galaxies(z: float) -> None:
    """The template of 1980 as it is against the medians of 150,000 BOSS/eBOSS galaxies: within
    0.13 mag up to redshift 0.4, within 0.2 mag up to 0.6. `draw` warps the rest away."""
    template = sed.spectrum("elliptical")[None]
    g, r, i = sed.ab_magnitudes(template, z, tuple(GRI.values()))[0]
    measured = (
        np.interp(z, colours.REDSHIFTS, colours.G_R),
        np.interp(z, colours.REDSHIFTS, colours.R_I),
    )
    limit = 0.13 if z <= 0.4 else 0.2
    assert g - r == pytest.approx(measured[0], abs=limit)
    assert r - i == pytest.approx(measured[1], abs=limit)


@pytest.mark.parametrize("kind", [k for k, v in colours.KINDS.items() if v.measured])
def test_pan_starrs_colours_are_the_measured_ones(kind: str) -> None:
    table = colours.KINDS[kind]
    z = 0.5 * sum(table.redshifts)
    for seed in range(20):
        drawn = colours.draw(np.random.default_rng(seed), kind, z, GRI)
        assert table.measured is not None
        expected = table.measured(np.random.default_rng(seed), z)
        assert (drawn["g"] - drawn["r"], drawn["r"] - drawn["i"]) == pytest.approx(expected)
        assert drawn["i"] == pytest.approx(0.0, abs=1e-12)


@pytest.mark.parametrize("kind", colours.KINDS)
def test_draws_are_finite_and_follow_their_seed(kind: str) -> None:
    for z in (0.0, 0.3, 1.5, 4.0):
        first = colours.draw(np.random.default_rng(3), kind, z, OTHERS)
        again = colours.draw(np.random.default_rng(3), kind, z, OTHERS)
        other = colours.draw(np.random.default_rng(4), kind, z, OTHERS)
        assert first == again != other
        assert list(first) == list(OTHERS)
        assert np.isfinite(list(first.values())).all()


def test_red_galaxies_are_red_from_u_to_z_and_sources_are_not() -> None:
    rng = np.random.default_rng(5)
    red = [colours.draw(rng, "passive", 0.3, OTHERS) for _ in range(100)]
    blue = [colours.draw(rng, "source", 1.5, OTHERS) for _ in range(100)]
    for first, second in (("u", "g"), ("g", "z")):
        difference = [np.median([c[first] - c[second] for c in many]) for many in (red, blue)]
        assert difference[0] > difference[1] + 0.2


def test_a_filter_close_to_pan_starrs_g_has_nearly_its_colour() -> None:
    both = {"ps1": GRI["g"], "hsc": OTHERS["g"]}
    for kind, z in (("passive", 0.3), ("disc", 0.2), ("source", 1.5), ("star", 0.0)):
        drawn = [colours.draw(np.random.default_rng(k), kind, z, both) for k in range(30)]
        assert max(abs(c["ps1"] - c["hsc"]) for c in drawn) < 0.15


def test_reference_r_puts_r_at_nought() -> None:
    drawn = colours.draw(np.random.default_rng(1), "source", 1.5, GRI, reference="r")
    assert drawn["r"] == pytest.approx(0.0, abs=1e-12)


def test_known_colours_are_kept() -> None:
    rng = np.random.default_rng(1)
    drawn = colours.of_measured(rng, "passive", 0.4, (1.7, 0.6), GRI)
    assert drawn == pytest.approx({"g": 2.3, "r": 0.6, "i": 0.0})


def test_an_unknown_kind_lists_what_there_is() -> None:
    with pytest.raises(InputError, match=r"expected one of passive, .*star.*'comet'"):
        colours.draw(np.random.default_rng(0), "comet", 0.1, GRI)


@pytest.mark.parametrize(("band", "z"), [("u", 2.9), ("g", 4.6)])
def test_nothing_shines_below_the_lyman_limit(band: str, z: float) -> None:
    """Dropouts: the filter lies below 912 (1 + z), so the source is as good as dark in it."""
    assert OTHERS[band].red_angstrom < 912 * (1 + z) + 1500
    before = colours.draw(np.random.default_rng(2), "quasar", z - 1.0, OTHERS)
    after = colours.draw(np.random.default_rng(2), "quasar", z, OTHERS)
    assert after[band] - before[band] > 0.8


def test_a_quasar_has_its_lines_in_its_colours() -> None:
    """Lyman alpha rises to more than twice the continuum beside it."""
    line = sed.spectrum("quasar")
    at = int(np.argmin(np.abs(sed.REST_ANGSTROM - 1216.3)))
    beside = int(np.argmin(np.abs(sed.REST_ANGSTROM - 1300.0)))
    assert line[at] > 2 * line[beside]


def test_dust_reddens_by_its_own_measure() -> None:
    """E(B - V) is the difference of the dimming at 4400 and at 5500 Angstrom (R_V 4.05)."""
    dimming = -2.5 * np.log10(sed.dust(0.3))
    at = np.interp([4400.0, 5500.0], sed.REST_ANGSTROM, dimming)
    assert at[0] - at[1] == pytest.approx(0.3, abs=0.03)
    assert at[1] == pytest.approx(4.05 * 0.3, abs=0.03)


def test_the_forest_dims_as_madau_found() -> None:
    """Between Lyman beta and alpha of a source at redshift 3.5, half of the light is left
    (Madau 1995, figure 3b)."""
    passed = sed.intergalactic(3.5)
    between = (sed.REST_ANGSTROM > 1050) & (sed.REST_ANGSTROM < 1200)
    assert passed[between].mean() == pytest.approx(0.6, abs=0.1)
    assert (passed[sed.REST_ANGSTROM > 1220] == 1.0).all()


@pytest.mark.parametrize("kelvin", [4000.0, 6500.0, 12000.0])
def test_magnitudes_of_a_black_body_are_those_of_its_flux_densities(kelvin: float) -> None:
    """A smooth spectrum's colour is that of f_nu at the filters' wavelengths, to 0.02 mag."""
    wavelength = sed.REST_ANGSTROM * units.Angstrom
    x = (constants.h * constants.c / (wavelength * constants.k_B * kelvin * units.K)).to_value("")
    f_lambda = sed.REST_ANGSTROM**-5.0 / np.expm1(x)
    narrow = [Passband(blue_angstrom=w - 100, red_angstrom=w + 100) for w in (5000.0, 8000.0)]
    found = sed.ab_magnitudes(f_lambda[None], 0.0, narrow)[0]
    f_nu = np.interp([5000.0, 8000.0], sed.REST_ANGSTROM, f_lambda * sed.REST_ANGSTROM**2)
    expected = -2.5 * np.log10(f_nu[0] / f_nu[1])
    assert found[0] - found[1] == pytest.approx(expected, abs=0.02)


@pytest.mark.parametrize("name", sed.names())
def test_every_spectrum_is_positive_and_unit_at_5500(name: str) -> None:
    flux = sed.spectrum(name)
    assert flux.min() >= 0
    assert np.isfinite(flux).all()
    assert np.interp(5500.0, sed.REST_ANGSTROM, flux) == pytest.approx(1.0)


@pytest.mark.parametrize(("low", "high"), [(5000.0, 5000.0), (6000.0, 5000.0)])
def test_a_pass_band_has_a_width(low: float, high: float) -> None:
    with pytest.raises(ValueError, match="red_angstrom above blue_angstrom"):
        Passband(blue_angstrom=low, red_angstrom=high)
