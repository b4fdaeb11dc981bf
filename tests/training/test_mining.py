"""Rounds of mining: which rows, what they change, and that a halt changes nothing."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import yaml
from typer.testing import CliRunner

import training
from lenspipe.errors import InputError
from lenspipe.models.card import file_sha256
from training import cli, fit, mining, stages
from training.data import joined, load_images
from training.learnt import learnt_sets
from training.metrics import Curve
from training.mining import Sets, fpr_at_tpr, hardest, mine
from training.recipe import MemberRecipe, Mining, load_member, load_recipe, parse_recipe
from training.unseen import check_unseen
from training.workspace import Workspace

MakeSet = Callable[[Path, int, int], Path]
RECIPES = sorted((Path(training.__file__).parent / "recipes").glob("*.yaml"))


def mined(content: dict[str, Any], **changes: Any) -> dict[str, Any]:
    splits = {**content["splits"], "pool": {"n": 96, "seed": 8}}
    return {
        **content,
        "splits": splits,
        "mining": {"rounds": 2, "top": 7},
        "epochs": 2,
        **changes,
    }


def member(content: dict[str, Any]) -> MemberRecipe:
    recipe = parse_recipe(content)
    assert isinstance(recipe, MemberRecipe)
    return recipe


@pytest.fixture(scope="module")
def sets(tmp_path_factory: pytest.TempPathFactory, make_set: MakeSet) -> Sets:
    folder = tmp_path_factory.mktemp("sets")
    train, validation, pool = (load_images(make_set(folder / f"{k}.h5", k, 96)) for k in (1, 2, 8))
    return Sets(train, validation, pool)


def test_the_highest_that_are_allowed_in_order() -> None:
    logits = np.array([5.0, 1.0, 3.0, 3.0, 9.0])
    allowed = np.array([True, True, True, True, False])
    assert hardest(logits, allowed, Mining(top=3)).tolist() == [0, 2, 3]
    assert hardest(logits, allowed, Mining(above=2.9)).tolist() == [0, 2, 3]
    assert hardest(logits, allowed, Mining(above=5.0)).tolist() == []


def test_the_false_positive_rate_at_a_completeness_by_hand() -> None:
    curve = Curve(
        np.array([9.0, 7.0, 5.0, 3.0, 8.0, 4.0, 2.0, 1.0]), np.array([True] * 4 + [False] * 4)
    )
    assert fpr_at_tpr(curve, 0.25) == 0.0
    assert fpr_at_tpr(curve, 0.5) == 0.25
    assert fpr_at_tpr(curve, 1.0) == 0.5


def test_a_set_with_rows_of_another(sets: Sets) -> None:
    assert sets.pool is not None
    both = joined(sets.train, sets.pool, np.array([4, 2]))
    assert len(both) == len(sets.train) + 2
    assert np.array_equal(both.inputs["image"][-1], sets.pool.inputs["image"][2])
    assert both.kinds[-2] == sets.pool.kinds[4]
    assert len(both.truth["theta_e_arcsec"]) == len(both)
    other = replace(sets.pool, specs={})
    with pytest.raises(InputError, match="pixels as"):
        joined(sets.train, other, np.array([0]))


def test_each_round_takes_the_hardest_that_are_left_and_trains_with_them(
    sets: Sets, recipe_content: dict[str, Any], tmp_path: Path
) -> None:
    recipe = member(mined(recipe_content))
    assert recipe.mining is not None
    last = mine(recipe, recipe.mining, sets, tmp_path, device="cpu")
    assert sets.pool is not None
    rounds = mining.read_record(tmp_path)
    rows = [row for done in rounds for row in done["rows"]]
    assert [len(done["rows"]) for done in rounds] == [7, 7]
    assert len(set(rows)) == 14
    assert not sets.pool.positive[rows].any()
    # The first round's, by the first network itself.
    first = fit.load_best(recipe, sets.train.shapes, mining.round_folder(tmp_path, 0))
    logits = mining._logits(first, sets.pool, "cpu")
    assert rounds[0]["rows"] == hardest(logits, ~sets.pool.positive, recipe.mining).tolist()
    assert rounds[0]["before"] == mining._judged(first, sets.validation, recipe.mining, "cpu")
    assert rounds[1]["before"] == rounds[0]["after"]
    assert rounds[1]["after"] == mining._judged(last, sets.validation, recipe.mining, "cpu")
    # The last network is that of a training with those rows.
    train = joined(sets.train, sets.pool, np.array(rows))
    again = fit.fit(recipe, train, sets.validation, tmp_path / "again", device="cpu")
    for key, weight in again.model.state_dict().items():
        assert weight.equal(last.model.state_dict()[key]), key


def test_a_mining_that_was_halted_goes_on_as_if_it_had_not(
    sets: Sets, recipe_content: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = member(mined(recipe_content, mining={"rounds": 2, "top": 7, "begin": "before"}))
    assert recipe.mining is not None
    straight = mine(recipe, recipe.mining, sets, tmp_path / "straight", device="cpu")

    trained = fit.fit

    def halting(*given: Any, **named: Any) -> fit.Fitted:
        if given[3].name == "round-1":
            trained(*given, **named, stop_after=1)
            raise KeyboardInterrupt
        return trained(*given, **named)

    with monkeypatch.context() as patched:
        patched.setattr(fit, "fit", halting)
        with pytest.raises(KeyboardInterrupt):
            mine(recipe, recipe.mining, sets, tmp_path / "halted", device="cpu")
    resumed = mine(recipe, recipe.mining, sets, tmp_path / "halted", device="cpu")
    records = [(tmp_path / name / mining.RECORD).read_text() for name in ("straight", "halted")]
    assert records[0] == records[1]
    for key, weight in straight.model.state_dict().items():
        assert weight.equal(resumed.model.state_dict()[key]), key


def test_an_empty_round_says_so(sets: Sets, recipe_content: dict[str, Any], tmp_path: Path) -> None:
    recipe = member(mined(recipe_content, epochs=1, mining={"above": 99.0}))
    assert recipe.mining is not None
    with pytest.raises(InputError, match="non-lenses in the pool that are left"):
        mine(recipe, recipe.mining, sets, tmp_path, device="cpu")


def test_the_command_mines_and_fine_tuning_begins_with_its_last_round(
    recipe_content: dict[str, Any], make_set: MakeSet, tmp_path: Path
) -> None:
    recipe = member(mined(recipe_content, epochs=1, mining={"rounds": 1, "top": 5}))
    tuned = {**recipe_content, "name": "tuned", "epochs": 1, "start_from": {"recipe": "toy.yaml"}}
    written = {"toy": mined(recipe_content, epochs=1, mining={"rounds": 1, "top": 5})}
    for name, content in {**written, "tuned": tuned}.items():
        (tmp_path / f"{name}.yaml").write_text(yaml.safe_dump(content))
    work = Workspace(tmp_path / "work", device="cpu")
    (work.root / "data").mkdir(parents=True)
    for split in ("train", "validation", "pool"):
        make_set(work.data(recipe, split), recipe.simulate_block(split)["seed"], 96)
    with h5py.File(work.data(recipe, "pool"), "a") as file:
        file["label"][:] = 0  # a pool may be of non-lenses alone
    options = ["--work", str(work.root), "--device", "cpu"]
    child = load_member(tmp_path / "tuned.yaml")
    with pytest.raises(InputError, match=r"start_from\.recipe: expected toy, trained"):
        stages.origin(child, work)
    done = CliRunner().invoke(cli.app, ["mine", str(tmp_path / "toy.yaml"), *options])
    assert done.exit_code == 0, done.output
    assert "round 1: 5 non-lenses" in done.output
    assert work.graph(recipe).exists()
    record = json.loads((work.member(recipe) / mining.RECORD).read_text())
    assert record["recipe"] == recipe.sha256()
    begin = stages.origin(child, work)
    assert begin is not None
    assert begin.checkpoint == str(work.member(recipe) / "round-1" / fit.BEST)
    taken = {one.use: one for one in learnt_sets(child, work) if one.recipe == "toy"}
    assert list(taken) == ["train", "validation", "pool"]
    assert (taken["pool"].n, taken["pool"].n_taken) == (96, 5)
    assert taken["pool"].sha256 == file_sha256(work.data(recipe, "pool"))
    assert [one.use for one in learnt_sets(child, work) if one.recipe == "tuned"] == [
        "train",
        "validation",
    ]
    tuned_network = stages.fit_network(child, stages.learning_sets(child, work), work)
    assert tuned_network.epoch == 1


def test_a_recipe_without_mining_is_refused(recipe_content: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "r.yaml").write_text(yaml.safe_dump(recipe_content))
    done = CliRunner().invoke(cli.app, ["mine", str(tmp_path / "r.yaml")])
    assert isinstance(done.exception, InputError)


def test_pools_and_beginnings_are_apart_from_what_judges(recipe_content: dict[str, Any]) -> None:
    """A pool of the calibration's real galaxies; a beginning that was trained on the test set's."""
    sky = {"instrument": "ps1", "data": "../shared/data"}
    apart = {"calibration": {"seed": 3, "hosts": "calibration"}}
    splits = {**recipe_content["splits"], **apart, "test": {"seed": 4, "hosts": "held_out"}}
    content = {**recipe_content, "simulate": sky, "splits": splits}
    good = mined(content)
    check_unseen(member(good))
    leaking = {**good["splits"], "pool": {"seed": 8, "hosts": "calibration"}}
    with pytest.raises(InputError, match=r"splits\.calibration\.hosts.*toy's pool"):
        check_unseen(member({**good, "splits": leaking}))
    parent = {**content, "name": "parent"}
    parent["splits"] = {**splits, "train": {"seed": 4}, "test": {"seed": 44, "hosts": "held_out"}}
    child = {**content, "start_from": {"recipe": parent}}
    with pytest.raises(InputError, match=r"splits\.test\.seed.*parent's train"):
        check_unseen(member(child))


@pytest.mark.parametrize("change", [{"mining": None}, {"mining": {"top": 3, "above": 1.0}}])
def test_blocks_and_splits_go_together(
    recipe_content: dict[str, Any], change: dict[str, Any]
) -> None:
    with pytest.raises(InputError, match="expected"):
        parse_recipe({**mined(recipe_content), **change})


def test_a_shipped_member_is_mined() -> None:
    recipes = (load_recipe(path) for path in RECIPES)
    found = [r for r in recipes if isinstance(r, MemberRecipe) and r.mining is not None]
    assert [recipe.name for recipe in found] == ["ps1-mined"]
    check_unseen(found[0])
