"""The recipes that lie here are those that made the shipped networks."""

from __future__ import annotations

from pathlib import Path

import pytest

import training
from lenspipe.models import zoo
from lenspipe.models.card import read_card
from lenspipe.models.ensemble_file import describe_ensemble
from training.recipe import MemberRecipe, load_ensemble, load_member, load_recipe
from training.simulate.hosts import load_hosts
from training.simulate.instrument import load_instrument

RECIPES = Path(training.__file__).parent / "recipes"
NETWORKS = sorted(zoo.folder().glob("*.onnx"))


@pytest.mark.parametrize("path", NETWORKS, ids=lambda path: path.stem)
def test_a_shipped_network_is_its_recipes(path: Path) -> None:
    card = read_card(path)
    recipe = load_member(RECIPES / card.training.recipe)
    assert recipe.name == card.name == path.stem
    assert recipe.sha256() == card.training.recipe_sha256
    assert recipe.seed == card.training.seed
    if recipe.task == "lens_finding":
        assert recipe.simulate_block("train")["n"] == card.training.n_train


def test_every_member_recipe_has_its_network() -> None:
    recipes = [load_recipe(path) for path in sorted(RECIPES.glob("*.yaml"))]
    members = {recipe.name for recipe in recipes if isinstance(recipe, MemberRecipe)}
    assert members == {path.stem for path in NETWORKS}


@pytest.mark.data
def test_the_shipped_ensemble_names_the_hosts_that_its_making_took(data: Path) -> None:
    ensemble = describe_ensemble("ps1-gri")
    ps1 = load_instrument("ps1")
    blocks = [load_ensemble(RECIPES / "ps1-gri.yaml").simulate_block("calibration")]
    for member in ensemble.members:
        recipe = load_member(RECIPES / member.card.training.recipe)
        blocks += [recipe.simulate_block(split) for split in ("train", "validation")]
    sides = {block.get("hosts", "training") for block in blocks}
    hosts = sorted(host.name for side in sides for host in load_hosts(data, ps1, side))
    assert list(ensemble.spec.seen) == hosts
    assert {member.card.training.real_objects for member in ensemble.members} == {tuple(hosts)}
