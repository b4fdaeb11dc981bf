"""Sets of several pixel grids, and of any instrument."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import zarr

from lenspipe.errors import InputError
from training.simulate import contaminants
from training.simulate.dataset import Generator, parse_recipe, truth_columns
from training.simulate.instrument import instrument_names, load_grids
from training.simulate.observe import typical_conditions
from training.simulate.scene import Point, Scene, flux
from training.simulate.sets import make_dataset
from training.simulate.views import Placed, View, views_of

EUCLID = {"instrument": "euclid", "size_arcsec": 7.0, "snr_band": "VIS", "n": 3, "seed": 4}
SNR_BAND = {"euclid": "VIS", "hst-f160w": "F160W"}


def generator(**recipe: object) -> Generator:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "hst-f160w F160W: no folder of real data")
        return Generator.of(parse_recipe(recipe))


def test_the_challenges_sizes_follow_from_twenty_arcsec() -> None:
    views = views_of(load_grids("euclid"), 48, 20.0)
    assert {view.dataset: view.size_pixels for view in views} == {
        "images_vis": 200,
        "images_nisp": 66,
    }
    assert [view.dataset for view in views_of(load_grids("ps1"), 48, None)] == ["images"]


@pytest.mark.parametrize("name", instrument_names())
def test_every_instrument_makes_lenses_and_others(name: str) -> None:
    recipe = {"instrument": name, "size_arcsec": 6.0, "snr_band": SNR_BAND.get(name, "g")}
    made = generator(**recipe, n=2, seed=6, lens_fraction=1.0).example(0)
    other = generator(**recipe, n=2, seed=6, lens_fraction=0.0).example(0)
    for example in (made, other):
        for image in (example.image, *example.more_images.values()):
            assert np.isfinite(image).all()
            assert image.std() > 0
    assert (made.label, other.label) == (1, 0)
    bands = [band for grid in load_grids(name).values() for band in grid.bands]
    for band in bands:
        for column in ("mag", "arc_mag", "source_mag", "arc_snr", "psf_fwhm_arcsec", "sky_rms"):
            assert np.isfinite(made.truth[f"{column}_{band}"])
        assert np.isfinite(other.truth[f"mag_{band}"])


def test_a_place_is_the_same_part_of_the_sky_on_both_grids() -> None:
    """An odd and an even side: pixel `size // 2` is the position that stamps are cut about."""
    vis, nisp = (
        View(name, grid, size)
        for (name, grid), size in zip(load_grids("euclid").items(), (200, 67), strict=True)
    )
    assert nisp.moved(vis, (100.0, 100.0), (0.0, 0.0)) == (33.0, 33.0)
    assert nisp.moved(vis, (106.0, 97.0), (0.25, -0.25)) == pytest.approx((35.25, 31.75))


def test_a_star_has_its_magnitudes_and_place_on_both_grids() -> None:
    magnitudes = {"VIS": 20.0, "Y": 19.0, "J": 18.5, "H": 18.0}
    scene = Scene("star", (), magnitudes, points=(Point(0.9, -0.6, magnitudes),))
    vis, nisp = views_of(load_grids("euclid"), 48, 12.0)
    for view, centre in ((vis, (60.0, 60.0)), (nisp, nisp.moved(vis, (60.0, 60.0), (0.0, 0.0)))):
        light = view.light(scene, typical_conditions(view.instrument), centre)
        step, bands = view.instrument.pixel_scale_arcsec, view.instrument.bands
        expected = [flux(magnitudes[band], view.instrument.zero_point_mag) for band in bands]
        np.testing.assert_allclose(light.sum(axis=(1, 2)), expected, rtol=0.01)
        y, x = np.mgrid[: view.size_pixels, : view.size_pixels] - view.size_pixels // 2
        for band in light:
            assert step * (band * x).sum() / band.sum() == pytest.approx(0.9, abs=0.01)
            assert step * (band * y).sum() / band.sum() == pytest.approx(-0.6, abs=0.01)


def test_neighbours_are_the_same_on_both_grids() -> None:
    vis, nisp = views_of(load_grids("euclid"), 48, 12.0)
    rng = np.random.default_rng(3)
    star = contaminants.draw(rng, "star", vis.instrument)
    lone = Scene("star", (), star.magnitudes, points=star.points[:1])
    seen = typical_conditions(nisp.instrument)
    beside = Placed(lone, nisp.moved(vis, (90.0, 60.0), (0.0, 0.0)))
    light = nisp.neighbours([beside], seen)
    row, column = np.unravel_index(int(light[2].argmax()), light[2].shape)
    assert (int(row), int(column)) == (20, 30)
    assert light[2].sum() == pytest.approx(flux(lone.points[0].magnitudes["H"], 23.9), rel=0.01)


@pytest.mark.parametrize("suffix", ["h5", "zarr"])
def test_a_set_of_two_grids_says_what_the_pixels_of_each_are(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"set.{suffix}"
    make_dataset(parse_recipe(EUCLID), path)
    file: Any = h5py.File(path) if suffix == "h5" else zarr.open_group(path, mode="r")
    for name, bands, side, step in (
        ("images_vis", ["VIS"], 70, 0.1),
        ("images_nisp", ["Y", "J", "H"], 23, 0.3),
    ):
        stamps = file[name]
        assert stamps.shape == (3, len(bands), side, side)
        assert list(stamps.attrs["bands"]) == bands
        assert stamps.attrs["pixel_scale_arcsec"] == step
        assert stamps.attrs["zero_point_mag"] == 23.9
    assert "images" not in file
    assert {f"truth/arc_snr_{band}" for band in ("VIS", "Y", "J", "H")} <= {
        f"truth/{name}" for name in file["truth"]
    }


def test_examples_of_two_grids_follow_their_seed_and_are_spoilt_on_one() -> None:
    whole = generator(**EUCLID, defects={}).example(1)
    again = generator(**EUCLID, defects={}).example(1)
    assert np.array_equal(whole.image, again.image)
    changed = []
    for seed in range(8):
        clean = generator(**{**EUCLID, "seed": seed}, defects={}).example(0)
        spoilt = generator(**{**EUCLID, "seed": seed}, defects={"bleeding_column": 1.0}).example(0)
        on_vis = not np.array_equal(clean.image, spoilt.image)
        on_nisp = not np.array_equal(
            clean.more_images["images_nisp"], spoilt.more_images["images_nisp"]
        )
        assert on_vis != on_nisp
        changed.append(on_vis)
    assert 0 < sum(changed) < 8


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"size_arcsec": None}, "size_arcsec: expected a size for the grids vis, nisp"),
        ({"size_arcsec": 3.0}, "16 to 256 pixels on grid nisp"),
        ({"snr_band": "H"}, "snr_band: expected one of .*VIS"),
        ({"bands": ["VIS", "K"]}, "bands: expected some of VIS, Y, J, H"),
        ({"content": "arcs"}, "content: expected stamps with an instrument of several grids"),
    ],
)
def test_what_several_grids_need_is_said(change: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        generator(**{**EUCLID, **change})


def test_a_recipe_chooses_bands() -> None:
    made = generator(n=1, seed=3, bands=["z", "g"], lens_fraction=0.0)
    assert made.example(0).image.shape == (2, 48, 48)
    columns = truth_columns(made.instrument)
    assert "mag_z" in columns
    assert "mag_r" not in columns
    only = generator(**{**EUCLID, "bands": ["J"], "snr_band": "J", "lens_fraction": 0.0})
    assert [view.dataset for view in only.views] == ["images_nisp"]
    assert only.example(0).image.shape == (1, 23, 23)
