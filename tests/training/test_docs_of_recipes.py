"""Recipes that the pages show do what they say: sets of them are simulated, networks trained."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from training import stages
from training.recipe import MemberRecipe, parse_recipe
from training.unseen import learnt_from
from training.workspace import Workspace

DOCS = Path(__file__).parents[2] / "docs"


def shown() -> list[dict[str, Any]]:
    """The members' recipes of all pages."""
    texts = (page.read_text("utf-8") for page in sorted(DOCS.glob("*.md")))
    blocks = [text for page in texts for text in re.findall(r"```yaml\n(.*?)```", page, re.DOTALL)]
    return [content for content in map(yaml.safe_load, blocks) if "architecture" in content]


def small(content: dict[str, Any]) -> dict[str, Any]:
    """The same with few stamps and one epoch."""
    splits = {name: {**split, "n": 64} for name, split in content["splits"].items()}
    mining = {"mining": {**content["mining"], "top": 8}} if "mining" in content else {}
    few = {"epochs": 1, "batch_size": 32, "select_by": "auroc"}
    return {**content, **mining, **few, "splits": splits}


@pytest.mark.parametrize("content", shown(), ids=lambda content: str(content["name"]))
def test_a_recipe_of_the_pages_makes_a_network(content: dict[str, Any], tmp_path: Path) -> None:
    recipe, work = parse_recipe(small(content)), Workspace(tmp_path, device="cpu")
    assert isinstance(recipe, MemberRecipe)
    for split in learnt_from(recipe):
        stages.simulate(recipe, split, work)
    fitted = stages.fit_network(recipe, stages.learning_sets(recipe, work), work)
    assert fitted.epoch == 1
