from __future__ import annotations

import copy
import logging
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lenspipe.errors import InputError
from training.simulate import real
from training.simulate.dataset import Generator, parse_recipe, truth_columns
from training.simulate.instrument import instrument_names, load_instrument

SMALL = {"n": 70, "seed": 12, "size_pixels": 32}


def test_arcs_stand_out_in_the_first_band_where_there_is_no_g() -> None:
    recipe = parse_recipe({**SMALL, "bands": ["z", "i"], "lens_fraction": 1.0})
    made = Generator.of(recipe)
    assert made.visible.band == "z"
    assert made.example(0).truth["arc_snr_z"] >= recipe.minimum_arc_snr
    assert Generator.of(parse_recipe({**SMALL, "bands": ["z", "g"]})).visible.band == "g"
    # A set that is there keeps its name.
    assert recipe.snr_band == parse_recipe({**SMALL, "snr_band": "g"}).snr_band == "g"
    with pytest.raises(InputError, match=r"snr_band: expected one of .*z.*i.*, found 'g'"):
        Generator.of(parse_recipe({**SMALL, "bands": ["z", "i"], "snr_band": "g"}))


def test_another_seed_is_another_set() -> None:
    one, two = (Generator.of(parse_recipe({"n": 1, "seed": s})) for s in (1, 2))
    assert not np.array_equal(one.example(0).image, two.example(0).image)


def test_the_mix_is_that_of_the_recipe() -> None:
    recipe = {"n": 1, "seed": 5, "lens_fraction": 0.0, "negatives": {"star": 3.0, "edge_on": 1.0}}
    made = Generator.of(parse_recipe(recipe))
    kinds = [made.example(k).kind for k in range(200)]
    assert set(kinds) == {"star", "edge_on"}
    assert np.mean([kind == "star" for kind in kinds]) == pytest.approx(0.75, abs=0.1)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"lens_fractions": 0.5}, "simulate.lens_fractions"),
        ({"n": 0}, "simulate.n"),
        ({"negatives": {"dragon": 1.0}}, "simulate.negatives: expected kinds out of .*dragon"),
        ({"negatives": {"star": 0.0}}, "simulate.negatives"),
        ({"instrument": "hubble"}, "instrument"),
        ({"snr_band": "y"}, "snr_band"),
        ({"hosts": "all"}, "simulate.hosts"),
        ({"defects": {"dragon": 0.1}}, "simulate.defects: expected kinds out of .*dragon"),
        ({"defects": {"cosmic_ray": 1.5}}, "simulate.defects"),
        ({"theta_e": {"low": 3.0, "high": 1.0}}, "simulate.theta_e"),
        ({"brightness": {"distribution": "uniform", "of": "alpha"}}, "simulate.brightness"),
        (
            {"brightness": {"distribution": "uniform", "of": "arc_snr", "low": 2.0, "high": 9.0}},
            "minimum_arc_snr",
        ),
        (
            {"brightness": {"distribution": "uniform", "of": "alpha", "low": -1.0, "high": 0.1}},
            "simulate.brightness: expected low over 0",
        ),
        ({"neighbours": float("inf")}, "simulate.neighbours"),
        ({"size_arcsec": float("nan")}, "simulate.size_arcsec"),
        ({"negatives": {"spiral": float("nan")}}, "simulate.negatives.spiral"),
        ({"theta_e": {"high": float("inf")}}, "simulate.theta_e.high"),
    ],
)
def test_a_wrong_recipe_is_refused_by_key(change: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        Generator.of(parse_recipe({**SMALL, **change}))


@pytest.mark.filterwarnings("ignore:.*a Moffat profile stands in")
@pytest.mark.parametrize("name", instrument_names())
def test_neighbours_find_a_place_beside_the_smallest_stamps(name: str) -> None:
    """On grids whose stamp lies within the 3 arcsec that neighbours keep away."""
    band = load_instrument(name).bands[0]
    recipe = {**SMALL, "instrument": name, "bands": [band], "snr_band": band, "size_pixels": 16}
    made = Generator.of(parse_recipe({**recipe, "lens_fraction": 0.0, "neighbours": 20.0}))
    example = made.example(0)
    assert example.image.shape == (1, 16, 16)
    rng = np.random.default_rng(0)
    step = made.instrument.pixel_scale_arcsec
    away = [np.hypot(*np.subtract(made._beside(rng), 8)) * step for _ in range(50)]
    assert min(away) > 3.0


def test_lenses_that_cannot_be_are_one_line_at_the_user() -> None:
    radii = {"distribution": "uniform", "low": 8.0, "high": 9.0}
    recipe = {**SMALL, "size_pixels": 16, "lens_fraction": 1.0, "theta_e": radii}
    made = Generator.of(parse_recipe(recipe))
    with pytest.raises(InputError, match=r"^simulate: expected lenses .*, found none") as raised:
        made.example(0)
    assert str(copy.copy(raised.value)) == str(raised.value)  # as from a worker


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"data": "{}/none"}, r"simulate\.data: expected a folder of real data, found none at"),
        ({}, r"simulate\.painted_fraction: expected 0, or training galaxies of ps1 with frames"),
        (
            {"lens_fraction": 0.0, "instrument": "lsst"},
            r"simulate\.real_negative_fraction: expected 0, or .* of lsst .*, found 0\.2 and none",
        ),
        (
            {"painted_fraction": 0.0, "real_negative_fraction": 0.0, "source_colours": "real"},
            r"simulate\.source_colours: expected sed, or galaxies of hsc_cosmos/blends",
        ),
    ],
)
def test_real_data_that_is_asked_for_must_be_there(
    change: dict[str, Any], message: str, tmp_path: Path
) -> None:
    data = change.get("data", "{}").format(tmp_path)
    with pytest.raises(InputError, match=message):
        Generator.of(parse_recipe({**SMALL, **change, "data": data}))


def test_what_needs_no_real_galaxies_may_name_a_folder_without(tmp_path: Path) -> None:
    arcs = Generator.of(parse_recipe({**SMALL, "content": "arcs", "data": str(tmp_path)}))
    none = {"painted_fraction": 0.0, "lens_fraction": 1.0}
    stamps = Generator.of(parse_recipe({**SMALL, **none, "data": str(tmp_path)}))
    assert arcs.hosts == stamps.hosts == ()


@pytest.mark.data
def test_real_galaxies_that_are_too_small_are_counted(
    data: Path, caplog: pytest.LogCaptureFixture
) -> None:
    recipe = {**SMALL, "instrument": "hsc", "data": str(data)}
    with caplog.at_level(logging.INFO, "training"):
        made = Generator.of(parse_recipe({**recipe, "size_pixels": 56}))
        assert made.hosts
        with pytest.raises(InputError, match=r"painted_fraction: .* frames of 204 pixels, found"):
            Generator.of(parse_recipe({**recipe, "size_pixels": 200}))
    assert re.search(r"hsc: \d+ of \d+ real galaxies are left out: .* hold 60 pixels", caplog.text)


def test_defects_fall_on_lenses_too() -> None:
    recipe = {**SMALL, "lens_fraction": 1.0, "painted_fraction": 0.0}
    clean, spoilt = (
        Generator.of(parse_recipe({**recipe, "defects": given}))
        for given in ({}, {"satellite_trail": 1.0})
    )
    for index in range(4):
        before, after = clean.example(index), spoilt.example(index)
        assert after.kind == "lens"
        assert after.truth == before.truth
        assert (after.image - before.image).max() > 0.1


def test_a_defect_can_be_what_a_negative_is() -> None:
    recipe = {**SMALL, "lens_fraction": 0.0, "negatives": {"cosmic_ray": 1.0}}
    made = Generator.of(parse_recipe(recipe)).example(0)
    assert (made.kind, made.label) == ("cosmic_ray", 0)


def test_distributions_can_be_made_uniform_on_purpose() -> None:
    recipe = {
        **SMALL,
        "lens_fraction": 1.0,
        "theta_e": {"distribution": "uniform", "low": 0.8, "high": 3.0},
        "brightness": {"distribution": "uniform", "of": "arc_snr", "low": 10.0, "high": 60.0},
        "gamma": 2.0,
    }
    made = Generator.of(parse_recipe(recipe))
    truth = [made.example(k).truth for k in range(60)]
    for column, low, high in (("theta_e_arcsec", 0.8, 3.0), ("arc_snr_g", 10.0, 60.0)):
        found = np.array([t[column] for t in truth])
        assert (found >= low * 0.999).all()
        assert (found <= high * 1.001).all()
        # Kolmogorov-Smirnov against the uniform: 0.21 is exceeded by 1% of such samples.
        rank = np.sort((found - low) / (high - low))
        assert np.abs(rank - (np.arange(60) + 0.5) / 60).max() < 0.21
    assert {t["gamma"] for t in truth} == {2.0}


def test_natural_lenses_are_not_uniform() -> None:
    made = Generator.of(parse_recipe({**SMALL, "lens_fraction": 1.0}))
    found = np.array([made.example(k).truth["arc_snr_g"] for k in range(40)])
    assert np.median(found) < 30.0


def test_every_lens_has_all_of_its_truth() -> None:
    made = Generator.of(parse_recipe({**SMALL, "lens_fraction": 1.0}))
    example = made.example(0)
    assert set(example.truth) == set(truth_columns(made.instrument))
    assert np.isfinite(list(example.truth.values())).all()


@pytest.mark.data
def test_held_out_hosts_never_appear_in_a_training_set(data: Path) -> None:
    recipe = {
        "n": 60,
        "seed": 2,
        "data": str(data),
        "painted_fraction": 1.0,
        "real_negative_fraction": 1.0,
    }
    made = Generator.of(parse_recipe(recipe))
    examples = [made.example(k) for k in range(60)]
    names = {e.host for e in examples if e.host}
    assert len(names) > 15
    assert all(real.split_of(name) == "training" for name in names)
    sources = {e.source for e in examples if e.source}
    assert len(sources) > 5
    assert all(real.split_of(name) == "training" for name in sources)
    assert {"painted_lens", "real_galaxy", "real_neighbour"} <= {e.kind for e in examples}
    assert all(np.isfinite(e.image).all() for e in examples)


def test_arcs_alone_lie_about_one_pixel() -> None:
    """Whatever the recipe's shift: merging puts pixel size // 2 onto the host's peak."""
    made = Generator.of(parse_recipe({**SMALL, "content": "arcs", "max_shift_pixels": 8}))
    truth = [made.example(k).truth for k in range(4)]
    places = {(t["centre_x_pixels"], t["centre_y_pixels"]) for t in truth}
    assert places == {(16.0, 16.0)}
