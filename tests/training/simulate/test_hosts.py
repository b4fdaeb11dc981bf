"""Real galaxies of every survey that has some, held to the same behaviour."""

from __future__ import annotations

from pathlib import Path
from typing import get_args

import numpy as np
import pytest

from lenspipe.errors import InputError
from training.simulate.dataset import Generator, parse_recipe
from training.simulate.hosts import files, load_hosts, names
from training.simulate.instrument import load_instrument
from training.simulate.priors import theta_e_arcsec
from training.simulate.real import Split, as_lens_host


@pytest.mark.parametrize("name", names())
def test_without_data_there_are_no_hosts(name: str, tmp_path: Path) -> None:
    instrument = load_instrument(name)
    assert load_hosts(None, instrument) == ()
    assert load_hosts(tmp_path, instrument) == ()
    assert files(name)


def test_a_survey_without_real_galaxies_has_none(tmp_path: Path) -> None:
    assert "lsst" not in names()
    assert load_hosts(tmp_path, load_instrument("lsst")) == ()
    assert files("lsst") == ()


def test_hosts_need_the_band_that_they_are_measured_in(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="i among them"):
        load_hosts(tmp_path, load_instrument("ps1", ("g", "r")))


@pytest.mark.data
@pytest.mark.parametrize("name", names())
def test_hosts_are_whole_and_on_one_side_each(name: str, data: Path) -> None:
    instrument = load_instrument(name)
    sides = {side: load_hosts(data, instrument, side) for side in get_args(Split)}
    every = [host.name for hosts in sides.values() for host in hosts]
    assert len(every) == len(set(every)) > 10
    for hosts in sides.values():
        for host in hosts:
            assert len(host.frame) == len(instrument.bands)
            assert np.isfinite(host.frame).all()
            assert (host.sky_rms > 0).all()
            if host.psf is not None:
                np.testing.assert_allclose(host.psf.sum(axis=(1, 2)), 1.0, rtol=1e-4)
            lens = as_lens_host(np.random.default_rng(0), host)
            assert 100 < lens.sigma_km_s < 400


@pytest.mark.data
@pytest.mark.parametrize("name", names())
def test_arcs_are_painted_on_every_surveys_galaxies(name: str, data: Path) -> None:
    recipe = {
        "n": 1,
        "seed": 3,
        "instrument": name,
        "data": str(data),
        "lens_fraction": 1.0,
        "painted_fraction": 1.0,
        "size_pixels": 36,
    }
    made = Generator.of(parse_recipe(recipe))
    examples = [made.example(k) for k in range(4)]
    assert sum(e.kind == "painted_lens" for e in examples) >= 2
    for example in examples:
        assert example.truth["arc_snr_g"] >= 10.0
        assert np.isfinite(example.image).all()


@pytest.mark.data
def test_des_hosts_lens_by_their_measured_velocity_dispersions(data: Path) -> None:
    instrument = load_instrument("des")
    measured = {h.name: h.sigma_km_s for h in load_hosts(data, instrument)}
    assert 140 < min(measured.values()) < max(measured.values()) < 400
    recipe = {"n": 1, "seed": 1, "instrument": "des", "data": str(data), "painted_fraction": 1.0}
    made = Generator.of(parse_recipe({**recipe, "lens_fraction": 1.0}))
    painted = [e for k in range(4) if (e := made.example(k)).host]
    assert painted
    for example in painted:
        truth = example.truth
        assert truth["sigma_v_km_s"] == pytest.approx(measured[example.host])
        expected = theta_e_arcsec(truth["sigma_v_km_s"], truth["z_lens"], truth["z_source"])
        assert truth["theta_e_arcsec"] == pytest.approx(expected)
