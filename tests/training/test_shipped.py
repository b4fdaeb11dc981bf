"""The recipes that lie here are those that made the shipped networks."""

from __future__ import annotations

from pathlib import Path

import pytest

import training
from lenspipe.models import zoo
from lenspipe.models.card import read_card
from lenspipe.models.ensemble_file import describe_ensemble
from training.recipe import MemberRecipe, load_ensemble, load_member, load_recipe
from training.simulate.hosts import degraded_hosts, load_hosts
from training.simulate.instrument import load_instrument
from training.simulate.real import Split, load_sources

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
def test_the_shipped_ensemble_names_the_real_galaxies_that_its_making_took(data: Path) -> None:
    """Hosts and lensed sources of the sides for training and calibration, and no other."""
    ensemble = describe_ensemble("ps1-gri")
    recipe = load_ensemble(RECIPES / "ps1-gri.yaml")
    blocks = [recipe.simulate_block("calibration")]
    for member in ensemble.members:
        own = load_member(RECIPES / member.card.training.recipe)
        blocks += [own.simulate_block(split) for split in ("train", "validation")]
    sides: set[Split] = {block.get("hosts", "training") for block in blocks}
    seen = set(ensemble.spec.seen)
    assert sides == {"training", "calibration"}
    ps1 = load_instrument("ps1", ("g", "r", "i"))
    own_hosts = {host.name for side in sides for host in load_hosts(data, ps1, side)}
    sources = {source.name for side in sides for source in load_sources(data, side)}
    assert own_hosts <= seen
    assert sources <= seen
    assert {name for name in seen - own_hosts - sources if not name.startswith("des-")} == set()
    held_out = {host.name for host in load_hosts(data, ps1, "held_out")}
    held_out |= {host.name for host in degraded_hosts(data, "des", ps1, "held_out")}
    held_out |= {source.name for source in load_sources(data, "held_out")}
    assert len(held_out) > 50
    assert not seen & held_out
    for member in ensemble.members:
        assert set(member.card.training.real_objects) <= seen
