"""Recipes: what is refused, in which words, and what identity means."""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

import training
from lenspipe.errors import InputError
from training import architectures, augmentations, losses, network, stages
from training.data import load_images
from training.recipe import (
    EnsembleRecipe,
    MemberRecipe,
    load_recipe,
    merged,
    parse_recipe,
)
from training.sound import check_batch, check_kinds, check_simulated_kinds
from training.unseen import check_unseen
from training.workspace import Workspace

RECIPES = sorted((Path(training.__file__).parent / "recipes").glob("*.yaml"))


def changed(content: dict[str, Any], **values: Any) -> dict[str, Any]:
    return {**copy.deepcopy(content), **values}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"epoch": 3}, "epoch: expected a known key"),
        ({"task": "lens"}, "task: expected one of lens_finding, photometry, ensemble"),
        ({"epochs": 0}, "epochs: expected a number above 0"),
        ({"optimiser": {"lr": 1}}, r"optimiser\.lr: expected a known key"),
        ({"normalisation": None}, "expected `normalisation` for images"),
        ({"task": "photometry"}, "expected `features` for task photometry"),
        ({"name": "../up"}, "name: "),
        (
            {"augmentation": [{"name": "d4", "nam": 1}]},
            r"augmentation\.steps\.0\.nam: expected a known key",
        ),
        ({"select_by": "tpr_at_fpr_2"}, "expected one of validation_loss, auroc, tpr0, tpr10"),
        ({"merging": {"hosts": ["star"]}}, "expected a split `arcs` with `merging`"),
        ({"start_from": {"replace": ["head"]}}, "expected either recipe or checkpoint"),
        ({"precision": "float8"}, "precision: expected one of"),
    ],
)
def test_a_mistake_is_one_line_that_names_the_key(
    recipe_content: dict[str, Any], change: dict[str, Any], message: str
) -> None:
    with pytest.raises(InputError, match=message.replace("expected `", "`")) as caught:
        parse_recipe(changed(recipe_content, **change))
    assert "\n" not in str(caught.value)


def test_sets_that_share_a_seed_are_refused(recipe_content: dict[str, Any]) -> None:
    splits = {**recipe_content["splits"], "test": {"n": 10, "seed": 1}}
    with pytest.raises(InputError, match="another seed in test than in train"):
        parse_recipe(changed(recipe_content, splits=splits))


def test_a_set_without_a_seed_is_refused(recipe_content: dict[str, Any]) -> None:
    splits = {**recipe_content["splits"], "test": {"n": 10}}
    with pytest.raises(InputError, match="integer `seed` in test"):
        parse_recipe(changed(recipe_content, splits=splits))


def test_a_set_changes_the_simulate_block_key_by_key() -> None:
    base = {"n": 1, "mix": {"star": 1, "ring": 2}}
    assert merged(base, {"n": 5, "mix": {"ring": 0}}) == {"n": 5, "mix": {"star": 1, "ring": 0}}
    assert base == {"n": 1, "mix": {"star": 1, "ring": 2}}


def test_identity_follows_every_value_and_no_order(recipe_content: dict[str, Any]) -> None:
    first = parse_recipe(recipe_content).sha256()
    assert parse_recipe(dict(reversed(recipe_content.items()))).sha256() == first
    assert parse_recipe(changed(recipe_content, seed=6)).sha256() != first


def test_keys_that_came_later_count_where_they_are_set(recipe_content: dict[str, Any]) -> None:
    """At their defaults neither the hash nor what is written knows them."""
    first = parse_recipe(recipe_content)
    spelled = changed(recipe_content, precision="auto", select_by="validation_loss", sampling=None)
    assert parse_recipe(spelled).sha256() == first.sha256()
    assert "precision" not in first.model_dump_json()
    changes: tuple[dict[str, Any], ...] = (
        {"precision": "float32"},
        {"sampling": {}},
        {"optimiser": {**recipe_content["optimiser"], "l2": 1e-4}},
        {"schedule": {"factor": 0.5}},
    )
    for change in changes:
        other = parse_recipe(changed(recipe_content, **change))
        assert other.sha256() != first.sha256()
        assert parse_recipe(json.loads(other.model_dump_json())) == other


def test_int8_is_another_form_of_the_same_network(recipe_content: dict[str, Any]) -> None:
    """How it is made is kept with the recipe and counts for nothing that the weights are."""
    plain, other = (
        parse_recipe(changed(recipe_content, int8={"method": method}))
        for method in ("percentile", "minmax")
    )
    assert plain.sha256() == other.sha256() == parse_recipe(recipe_content).sha256()
    assert "int8" not in plain.model_dump_json()
    assert parse_recipe(json.loads(other.model_dump_json())) == other
    children = [
        parse_recipe(
            changed(recipe_content, start_from={"recipe": json.loads(r.model_dump_json())})
        )
        for r in (plain, other)
    ]
    assert children[0].sha256() == children[1].sha256()
    with pytest.raises(InputError, match=r"int8\.method: expected one of percentile or minmax"):
        parse_recipe(changed(recipe_content, int8={"method": "best"}))


def test_augmentation_is_a_list_or_the_mapping_of_old(recipe_content: dict[str, Any]) -> None:
    steps = [{"name": "zoom", "parameters": {"largest": 1.2}}, {"name": "d4", "parameters": {}}]
    listed = parse_recipe(changed(recipe_content, augmentation=steps))
    assert isinstance(listed, MemberRecipe)
    assert listed.augmentation.in_order() == (("zoom", {"largest": 1.2}), ("d4", {}))
    assert json.loads(listed.model_dump_json())["augmentation"] == steps
    assert parse_recipe(json.loads(listed.model_dump_json())) == listed
    mapping = parse_recipe(recipe_content)
    assert isinstance(mapping, MemberRecipe)
    assert mapping.augmentation.in_order() == (
        ("d4", {}),
        ("shift", {"pixels": 1, "whole": True}),
        ("brightness", {"all_mag": 0.1, "colour_mag": 0.0}),
        ("noise", {"relative": 0.2}),
    )


def test_a_simulate_block_may_be_a_file(tmp_path: Path, recipe_content: dict[str, Any]) -> None:
    (tmp_path / "sky.yaml").write_text("instrument: toy\n")
    file = tmp_path / "recipe.yaml"
    file.write_text(yaml.safe_dump(changed(recipe_content, simulate="sky.yaml")))
    assert load_recipe(file).sha256() == parse_recipe(recipe_content).sha256()


def test_an_ensemble_is_not_judged_on_what_a_member_saw(recipe_content: dict[str, Any]) -> None:
    member = parse_recipe(recipe_content)
    ensemble = parse_recipe(
        {
            "name": "blend",
            "task": "ensemble",
            "description": "",
            "simulate": {"instrument": "toy"},
            "splits": {"calibration": {"n": 9, "seed": 3}, "test": {"n": 9, "seed": 2}},
            "members": ["toy"],
        }
    )
    assert isinstance(member, MemberRecipe)
    assert isinstance(ensemble, EnsembleRecipe)
    with pytest.raises(InputError, match=r"blend: splits\.test\.seed.*toy's validation"):
        check_unseen(ensemble, [member])


def real(content: dict[str, Any], **splits: dict[str, Any]) -> MemberRecipe:
    """The toy recipe with real hosts, on the sides that `splits` says."""
    simulate = {**content["simulate"], "data": "somewhere"}
    given = {name: {**block, **splits.get(name, {})} for name, block in content["splits"].items()}
    recipe = parse_recipe(changed(content, simulate=simulate, splits=given))
    assert isinstance(recipe, MemberRecipe)
    return recipe


def test_thresholds_and_figures_are_not_of_hosts_that_were_trained_on(
    recipe_content: dict[str, Any],
) -> None:
    check_unseen(parse_recipe(recipe_content))  # no real data: no hosts
    apart: dict[str, Any] = {"calibration": {"hosts": "calibration"}, "test": {"hosts": "held_out"}}
    check_unseen(real(recipe_content, **apart))
    none: dict[str, Any] = {"lens_fraction": 0.0, "real_negative_fraction": 0.0}
    check_unseen(real(recipe_content, **{**apart, "test": none}))
    sources: dict[str, Any] = {"painted_fraction": 0.0, "real_negative_fraction": 0.0}
    with pytest.raises(InputError, match=r"splits\.test\.hosts.*toy's train"):
        check_unseen(real(recipe_content, **{**apart, "test": sources}))
    with pytest.raises(InputError, match=r"splits\.calibration\.hosts.*toy's train"):
        check_unseen(real(recipe_content, test={"hosts": "held_out"}))
    tuned = real(recipe_content, **{**apart, "validation": {"hosts": "held_out"}})
    with pytest.raises(InputError, match=r"splits\.test\.hosts.*toy's validation"):
        check_unseen(tuned)
    same = real(recipe_content, calibration={"hosts": "held_out"}, test={"hosts": "held_out"})
    with pytest.raises(InputError, match=r"splits\.test\.hosts.*those of calibration"):
        check_unseen(same)


def test_thresholds_are_not_of_galaxies_that_photometry_was_trained_on() -> None:
    content = yaml.safe_load((RECIPES[0].parent / "ps1-photometry.yaml").read_text())
    check_unseen(parse_recipe(content))
    splits = changed(content["splits"], calibration={"seed": 7, "side": "validation"})
    with pytest.raises(InputError, match=r"splits\.calibration\.side.*'s validation"):
        check_unseen(parse_recipe({**content, "splits": splits}))
    same = {**content["splits"]["calibration"], "seed": 8}
    with pytest.raises(InputError, match=r"splits\.test\.side.*those of calibration"):
        check_unseen(parse_recipe({**content, "splits": {**content["splits"], "test": same}}))
    simulated = changed(content["splits"], calibration={"seed": 7, "lrg_rows": 0})
    check_unseen(parse_recipe({**content, "splits": simulated}))


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_a_shipped_recipe_is_sound(path: Path) -> None:
    recipe = load_recipe(path)
    assert recipe.name == path.stem
    if isinstance(recipe, MemberRecipe):
        check_unseen(recipe)
    if isinstance(recipe, EnsembleRecipe):
        members = [load_recipe(path.parent / f"{name}.yaml") for name in recipe.members]
        check_unseen(recipe, [m for m in members if isinstance(m, MemberRecipe)])
        return
    images = architectures.load(recipe.architecture.name).INPUT == "images"
    size = recipe.simulate["size_pixels"] if images else 0
    shapes = {"image": (3, size, size)} if images else {"features": (len(recipe.features),)}
    network.build(recipe, shapes)
    losses.build(recipe.loss.name, recipe.loss.parameters)
    augmentations.build(recipe.augmentation.in_order())


def test_shipped_members_differ_in_architecture_pixels_or_training_set() -> None:
    """Networks that learnt the same from the same make the same mistakes; validation is one set for
    all, so that their figures can be compared."""
    members = [load_recipe(path) for path in RECIPES]
    networks = [m for m in members if isinstance(m, MemberRecipe) and m.task == "lens_finding"]
    made_of = {
        (m.architecture.name, str(m.normalisation), m.simulate_block("train")["seed"])
        for m in networks
    }
    assert len(made_of) == len(networks) >= 4
    assert len({m.simulate_block("train")["seed"] for m in networks}) >= 3
    assert len({m.simulate_block("validation")["seed"] for m in networks}) == 1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"architecture": {"name": "resnet99"}},
            "architecture.name: expected one of cas_swinburne",
        ),
        (
            {"architecture": {"name": "resnet_narrow", "parameters": {"stem": -1}}},
            "architecture.parameters.stem: expected a number above 0, found -1",
        ),
        (
            {"architecture": {"name": "photometry_mlp"}},
            "architecture.name: expected one that takes",
        ),
        ({"normalisation": {"name": "foo"}}, "normalisation.name: expected one of asinh"),
        ({"normalisation": {"name": "zscale"}}, "normalisation.name: expected one that the graph"),
        (
            {"normalisation": {"name": "sqrt", "parameters": {"scale": []}}},
            "normalisation.scale: expected at least 1 entries",
        ),
        (
            {"normalisation": {"vis": {"name": "foo", "parameters": {}}}},
            "normalisation.vis: normalisation.name: expected one of asinh",
        ),
        ({"loss": {"name": "foo"}}, "loss.name: expected one of cross_entropy, focal, found 'foo'"),
        (
            {"loss": {"name": "focal", "parameters": {"gamma": -1}}},
            "loss.parameters.gamma: expected a number of at least 0",
        ),
        ({"augmentation": [{"name": "foo"}]}, "augmentation.0.name: expected one of brightness"),
        (
            {"augmentation": [{"name": "psf", "parameters": {"fwhm": 1}}]},
            "augmentation.0.parameters.fwhm: expected a known key",
        ),
        ({"batch_size": 10**9}, "batch_size: expected at most 256, the training set"),
        ({"fprs": [2.0, -1]}, "fprs.0: expected a number below 1.0, found 2.0"),
        ({"fprs": []}, "fprs: expected at least 1 entries"),
        ({"optimiser": {"learning_rate": float("inf")}}, "optimiser.learning_rate: expected a fin"),
        ({"optimiser": {"learning_rate": "nan"}}, "optimiser.learning_rate: expected a finite"),
        ({"simulate": {"weights": [1.0, float("nan")]}}, "simulate.weights.1: expected a finite"),
        (
            {"augmentation": [{"name": "psf", "parameters": {"fwhm_arcsec": float("inf")}}]},
            "augmentation.0.parameters.fwhm_arcsec: expected a finite number",
        ),
    ],
)
def test_a_recipe_that_cannot_be_made_is_refused_when_it_is_read(
    tmp_path: Path, recipe_content: dict[str, Any], change: dict[str, Any], message: str
) -> None:
    path = tmp_path / "r.yaml"
    path.write_text(yaml.safe_dump(changed(recipe_content, **change)))
    with pytest.raises(InputError, match=re.escape(message)) as caught:
        load_recipe(path)
    assert "\n" not in str(caught.value)


def test_a_parent_that_cannot_be_made_is_refused_with_its_child(
    tmp_path: Path, recipe_content: dict[str, Any]
) -> None:
    parent = changed(recipe_content, name="parent", loss={"name": "foo"})
    (tmp_path / "parent.yaml").write_text(yaml.safe_dump(parent))
    child = changed(recipe_content, start_from={"recipe": "parent.yaml"})
    (tmp_path / "child.yaml").write_text(yaml.safe_dump(child))
    with pytest.raises(InputError, match=r"start_from\.recipe: loss\.name: expected one of"):
        load_recipe(tmp_path / "child.yaml")


@pytest.mark.parametrize(
    ("blender", "message"),
    [
        ({"name": "median"}, "blender.name: expected one of logistic, mean"),
        (
            {"name": "logistic", "parameters": {"ridge": -1}},
            "blender.parameters.ridge: expected a number of at least 0",
        ),
    ],
)
def test_an_ensemble_with_an_unknown_blender_is_refused(
    tmp_path: Path, recipe_content: dict[str, Any], blender: dict[str, Any], message: str
) -> None:
    kept = {key: recipe_content[key] for key in ("description", "simulate", "fprs")}
    splits = {key: recipe_content["splits"][key] for key in ("calibration", "test")}
    content = {**kept, "name": "e", "task": "ensemble", "splits": splits, "members": ["toy"]}
    (tmp_path / "e.yaml").write_text(yaml.safe_dump({**content, "blender": blender}))
    with pytest.raises(InputError, match=re.escape(message)):
        load_recipe(tmp_path / "e.yaml")


def test_kinds_that_no_set_holds_are_refused_before_training(
    recipe_content: dict[str, Any], make_set: Callable[[Path, int, int], Path], tmp_path: Path
) -> None:
    """Toy sets hold lenses, spirals and stars."""
    train = load_images(make_set(tmp_path / "set.h5", 1, 16))
    split = {**recipe_content["splits"], "arcs": {"seed": 9}}
    merging = changed(recipe_content, splits=split, merging={"hosts": ["star", "early"]})
    weighing = changed(recipe_content, sampling={"kinds": {"rign": 9.0, "lens": 2.0}})
    for content, message in (
        (merging, "merging.hosts: expected kinds out of spiral, star, found early"),
        (weighing, "sampling.kinds: expected kinds out of lens, spiral, star, found rign"),
    ):
        recipe = parse_recipe(content)
        assert isinstance(recipe, MemberRecipe)
        with pytest.raises(InputError, match=message):
            check_kinds(recipe, train)
    good = parse_recipe(changed(recipe_content, sampling={"kinds": {"spiral": 9.0, "lens": 2.0}}))
    assert isinstance(good, MemberRecipe)
    check_kinds(good, train)
    with pytest.raises(InputError, match="batch_size: expected at most 16, the training set"):
        check_batch(good, len(train))


def test_kinds_that_a_recipe_does_not_simulate_are_refused_before_the_simulation(
    recipe_content: dict[str, Any], tmp_path: Path
) -> None:
    """Real galaxies without `data`; a kind that has no weight; a pool that has them."""
    work = Workspace(tmp_path)
    splits = {**recipe_content["splits"], "arcs": {"n": 8, "seed": 9, "content": "arcs"}}
    block = {"instrument": "ps1", "size_pixels": 16, "negatives": {"star": 1.0, "ring": 0.0}}
    plain = changed(recipe_content, simulate=block)
    merging = {**plain, "splits": splits, "merging": {"hosts": ["star", "real_galaxy"]}}
    weighing = {**plain, "sampling": {"kinds": {"ring": 3.0, "lens": 2.0}}}
    for content, message in (
        (merging, "merging.hosts: expected kinds out of star, found real_galaxy"),
        (weighing, "sampling.kinds: expected kinds out of lens, star, found ring"),
    ):
        with pytest.raises(InputError, match=message):
            stages.simulate(parse_recipe(content), "train", work)
    assert not (tmp_path / "data").exists()
    pool = {"n": 8, "seed": 8, "lens_fraction": 0.0, "negatives": {"ring": 1.0}}
    mined = {**weighing, "mining": {"top": 2}}
    good = parse_recipe({**mined, "splits": {**recipe_content["splits"], "pool": pool}})
    assert isinstance(good, MemberRecipe)
    check_simulated_kinds(good)
