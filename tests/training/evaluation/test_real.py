"""Judging on real pixels: on made-up frames everywhere, on the shipped committee where data are."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

import training
from lenspipe.contracts import InputSpec
from lenspipe.errors import InputError
from lenspipe.models.ensemble import load_ensemble
from lenspipe.proportion import clopper_pearson
from tests import toy_models
from training import cli
from training.evaluation import real, real_stamps, realism
from training.evaluation.real_stamps import BANDS, EXTENDED, GALAXY, POINT, Frame
from training.evaluation.subject import open_subject, seen_by
from training.recipe import load_ensemble as load_ensemble_recipe
from training.recipe import load_recipe
from training.simulate.real import split_of

RECIPE = Path(training.__file__).parent / "recipes" / "ps1-gri.yaml"


def named(side: str) -> str:
    return next(name for k in range(99) if split_of(name := f"J{k:06d}") == side)


def frame(name: str, group: str = real_stamps.HOSTS, arc: str = "no") -> Frame:
    """A galaxy in the middle, a wide one and a star beside it."""
    y, x = np.indices((120, 120))
    light = np.zeros((120, 120))
    for cx, cy, width, flux in ((60, 60, 5, 2000), (92, 60, 6, 1500), (60, 92, 2, 900)):
        spot = np.exp(-((x - cx) ** 2 + (y - cy) ** 2) / (2 * width**2))
        light += flux * spot / (2 * np.pi * width**2)
    noise = np.random.default_rng(0).normal(0, 0.05, (5, 120, 120))
    row = {"name": name, "folder": name, "group": group, "arc_visible_by_eye": arc}
    return Frame(name, row, np.asarray(noise + light, np.float32), 0)


def test_only_held_out_frames_and_visible_lenses_are_kept() -> None:
    kept, hidden = named("held_out"), named("training")
    frames = [frame(kept), frame(hidden), frame(f"{hidden}b", arc="clear")]
    assert [f.name for f in real_stamps.held_out(frames, ())] == [kept, f"{hidden}b"]
    assert len(real_stamps.held_out(frames, {hidden})) == 2
    with pytest.raises(InputError, match=f"never saw, found .*{kept}"):
        real_stamps.held_out(frames, {kept})


def test_frames_that_hold_no_host_lend_their_neighbours() -> None:
    frames = [frame("a", "lensed_quasars"), frame("b", "lensed_quasars"), frame("c")]
    assert [f.name for f in real_stamps.never_hosts(frames, {"b"})] == ["a"]


def test_the_source_lies_where_readers_put_it() -> None:
    found = real_stamps.centred([frame("a")], 48, 4)
    assert found.kind.tolist() == [GALAXY] * 4
    assert found.view.tolist() == [0, 1, 2, 3]
    brightest = np.unravel_index(found.images[0, 2].argmax(), (48, 48))
    assert np.abs(np.subtract(brightest, 24)).max() <= 1
    again = real_stamps.centred([frame("a")], 48, 4)
    np.testing.assert_array_equal(found.images, again.images)
    # A mirrored even stamp is off by a pixel, beside the shift of two.
    for image in found.images[1:]:
        place = np.unravel_index(image[2].argmax(), (48, 48))
        assert np.abs(np.subtract(place, 24)).max() <= 4


def test_neighbours_are_extended_or_stars_each_once() -> None:
    found = real_stamps.neighbours([frame("a")], 48)
    assert sorted(found.kind.tolist()) == [EXTENDED, POINT]
    assert found.images.shape == (2, 5, 48, 48)
    assert real_stamps.cut(frame("a"), (10, 60), 48) is None


def test_a_models_input_takes_its_bands_from_the_middle() -> None:
    images = np.arange(5 * 48 * 48, dtype=np.float32).reshape(1, 5, 48, 48)
    spec = InputSpec("image", ("i", "g"), 32, 0.25, 25.0)
    found = real_stamps.model_images(images, BANDS, [spec])["image"]
    assert found.shape == (1, 2, 32, 32)
    np.testing.assert_array_equal(found[0, 0, 16, 16], images[0, 2, 24, 24])
    for wrong in (
        InputSpec("image", ("u",), 32, 0.25, 25.0),
        InputSpec("image", ("g",), 32, 0.2, 25.0),
        InputSpec("image", ("g",), 64, 0.25, 25.0),
    ):
        with pytest.raises(InputError, match="input image"):
            real_stamps.model_images(images, BANDS, [wrong])


def test_ranks_are_parts_of_the_real_galaxies_with_their_interval() -> None:
    lenses = real_stamps.centred([frame("a", arc="clear"), frame("b", arc="possible")], 48)
    galaxies, own = np.arange(100.0, dtype=np.float32) / 100, np.arange(100)
    found = real.ranks(lenses, np.array([0.5, 9.0], np.float32), galaxies, own)
    assert [one["name"] for one in found] == ["b", "a"]
    assert [one["above"] for one in found] == [1.0, 0.5]
    assert [one["reached"] for one in found] == [True, False]
    assert found[0]["interval"] == pytest.approx(clopper_pearson(100, 100))
    tens = real.ranks(lenses, np.array([0.5, 9.0], np.float32), galaxies, own // 10)
    assert tens[0]["interval"] == pytest.approx(clopper_pearson(10, 10))
    assert tens[1]["interval"] == pytest.approx(clopper_pearson(5, 10))


def test_carried_thresholds_are_counted_on_real_galaxies() -> None:
    marks = (SimpleNamespace(fpr=0.01, score=0.5), SimpleNamespace(fpr=0.001, score=2.0))
    spec = SimpleNamespace(thresholds=marks)
    ensemble: Any = SimpleNamespace(description=SimpleNamespace(spec=spec))
    found = real.carried(np.array([0.0, 0.6, 0.7, 0.1], np.float32), np.arange(4), ensemble)
    assert [one["fpr"] for one in found] == [0.5, 0.0]
    assert found[1]["interval"] == pytest.approx(clopper_pearson(0, 4))


@pytest.mark.data
def test_real_frames_hold_what_was_held_out(data: Path) -> None:
    seen = seen_by(open_subject(load_recipe(RECIPE), None))
    frames = real_stamps.held_out(real_stamps.read_frames(data), seen)
    found = real_stamps.centred(frames, 48)
    kinds = found.kind.tolist()
    assert kinds.count("arc clear") == 3
    assert kinds.count("arc possible") == 2
    assert kinds.count(GALAXY) > 50
    galaxies = [m for m, kind in zip(found.measures, kinds, strict=True) if kind == GALAXY]
    assert 0.8 < np.nanmedian([m["g-r"] for m in galaxies]) < 1.8  # red ones
    assert 0.8 < np.median([m["r50_arcsec"] for m in galaxies]) < 2.5


@pytest.mark.data
@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_shipped_committee_is_judged_on_what_it_never_saw(data: Path, tmp_path: Path) -> None:
    arguments = ["evaluate", str(RECIPE), "--work", str(tmp_path), "--real", "--stamps", "60"]
    result = CliRunner().invoke(cli.app, arguments)
    assert result.exit_code == 0, result.output
    folder = tmp_path / "reports" / "ps1-gri" / "real"
    report = json.loads((folder / "real.json").read_text("utf-8"))
    assert report["sample"]["galaxies"] > 90
    assert {one["kind"] for one in report["lenses"]} == {"arc clear", "arc possible"}
    assert len(report["lenses"]) == 5
    assert report["injection"]["allowed_false_positives"] >= 1
    assert 0.0 < report["injection"]["tpr"]["target"]["value"] <= 1.0
    seen = seen_by(open_subject(load_recipe(RECIPE), None))
    assert not seen & {one["frame"] for one in report["best_false_positives"]}
    page = (folder / "index.html").read_text("utf-8")
    assert page.count("data:image/png") == 2 * (
        len(report["lenses"]) + len(report["best_false_positives"]) + report["misses"]["n"]
    )
    assert f"Every miss of the target ({report['misses']['n']} of" in page


@pytest.mark.data
@pytest.mark.slow
@pytest.mark.timeout(900)
def test_realism_compares_held_out_objects_with_mocks(data: Path, tmp_path: Path) -> None:
    arguments = ["evaluate", str(RECIPE), "--work", str(tmp_path), "--realism", "--stamps", "60"]
    result = CliRunner().invoke(cli.app, arguments)
    assert result.exit_code == 0, result.output
    folder = tmp_path / "reports" / "ps1-gri" / "realism"
    report = json.loads((folder / "realism.json").read_text("utf-8"))
    for name in ("galaxies", "lenses"):
        found = report[name]
        assert found["features"]["real_objects"] > 20
        assert set(found["members"]) == set(load_ensemble_recipe(RECIPE).members)
        for probe in (found["features"], found["statistics"], *found["members"].values()):
            assert 0.3 < probe["auroc"] <= 1.0
            assert probe["interval"][0] <= probe["auroc"] <= probe["interval"][1]
        assert {one["name"] for one in found["telling"]} >= {"noise_lag_1", "g-r", "background_g"}
        assert (folder / f"{name}.png").stat().st_size > 10_000


@pytest.mark.data
def test_a_committee_of_five_bands_is_judged_in_five(data: Path, tmp_path: Path) -> None:
    path = toy_models.make_ensemble(
        tmp_path, bands=BANDS, size=48, pixel_scale_arcsec=0.25, zero_point_mag=25.0
    )
    ensemble = load_ensemble(str(path), provider="cpu", threads=1)
    pixels = real.load(load_recipe(RECIPE), ensemble, 8)
    assert pixels.instrument.bands == BANDS
    assert pixels.injected.images.shape[1:] == (5, 48, 48)
    assert (pixels.injected.arcs.max(axis=(0, 2, 3)) > 0).all()
    scored = real.score(pixels, ensemble)
    assert np.isfinite(scored.injected).all()
    assert real.judge(pixels, scored, ensemble)["sample"]["injections"] == len(pixels.injected)


def test_another_survey_has_no_real_pixels_to_be_judged_on() -> None:
    recipe = load_recipe(RECIPE)
    other = recipe.model_copy(update={"simulate": {**recipe.simulate, "instrument": "hsc"}})
    ensemble = open_subject(recipe, None)
    for judge in (real.load, realism.comparisons):
        with pytest.raises(InputError, match="only survey whose real pixels") as caught:
            judge(other, ensemble, 8)
        assert "ps1-gri: simulate.instrument" in str(caught.value)
        assert "\n" not in str(caught.value)


def test_without_data_nothing_real_is_judged() -> None:
    recipe = load_recipe(RECIPE)
    bare = recipe.model_copy(update={"simulate": {**recipe.simulate, "data": None}})
    ensemble = open_subject(recipe, None)
    with pytest.raises(InputError, match=r"ps1-gri: simulate.data: expected a folder"):
        real.load(bare, ensemble, 8)
    with pytest.raises(InputError, match=r"ps1-gri: simulate.data: expected a folder"):
        realism.comparisons(bare, ensemble, 8)
