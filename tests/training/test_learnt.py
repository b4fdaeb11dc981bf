"""What a card says that a network learnt from."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from lenspipe.errors import InputError
from lenspipe.models.card import Training, file_sha256
from training import mining
from training.learnt import BEGUN, RECORD, learnt_sets, refuse_other_sets, write_learnt
from training.recipe import MemberRecipe, parse_recipe
from training.workspace import Workspace

MakeSet = Callable[[Path, int, int], Path]
Made = tuple[MemberRecipe, Workspace]


@pytest.fixture
def made(recipe_content: dict[str, Any], make_set: MakeSet, tmp_path: Path) -> Made:
    """A recipe that merges arcs and mines, its sets, and what mining took."""
    splits = {**recipe_content["splits"], "arcs": {"seed": 8}, "pool": {"seed": 9}}
    blocks = {"merging": {"hosts": ["star"]}, "mining": {"rounds": 2, "top": 3}}
    sky = {"instrument": "ps1", "n": 32}
    recipe = parse_recipe({**recipe_content, **blocks, "simulate": sky, "splits": splits})
    assert isinstance(recipe, MemberRecipe)
    work = Workspace(tmp_path)
    (tmp_path / "data").mkdir()
    for split, n in (("train", 24), ("validation", 16), ("pool", 32)):
        make_set(work.data(recipe, split), recipe.simulate_block(split)["seed"], n)
    with h5py.File(work.data(recipe, "arcs"), "w") as file:
        file["arcs"] = np.ones((5, 2, 16, 16), np.float32)
        file["label"] = np.ones(5, np.uint8)
    record(work.member(recipe), file_sha256(work.data(recipe, "pool")))
    return recipe, work


def record(folder: Path, pool: str) -> None:
    rounds = [{"rows": [1, 2, 3]}, {"rows": [4, 5]}]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / mining.RECORD).write_text(json.dumps({"pool_sha256": pool, "rounds": rounds}))


def test_base_set_arcs_and_mined_rows_are_all_told(made: Made) -> None:
    recipe, work = made
    found = learnt_sets(recipe, work)
    assert [(one.use, one.n, one.n_taken) for one in found] == [
        ("train", 24, 24),
        ("validation", 16, 16),
        ("arcs", 5, 5),
        ("pool", 32, 5),
    ]
    for one in found:
        assert one.sha256 == file_sha256(work.data(recipe, one.use))


def test_what_was_written_when_it_was_trained_stands(made: Made, make_set: MakeSet) -> None:
    recipe, work = made
    write_learnt(recipe, work)
    before = learnt_sets(recipe, work)
    make_set(work.data(recipe, "train"), 99, 8)
    assert learnt_sets(recipe, work) == before
    (work.member(recipe) / RECORD).unlink()
    assert learnt_sets(recipe, work)[0].n == 8


def test_a_pool_that_is_not_the_one_that_was_mined_is_refused(made: Made) -> None:
    recipe, work = made
    record(work.member(recipe), "0" * 64)
    with pytest.raises(InputError, match="toy: set pool: expected SHA-256 0000"):
        learnt_sets(recipe, work)
    (work.member(recipe) / mining.RECORD).unlink()
    with pytest.raises(InputError, match="toy: mined rows: expected a record"):
        learnt_sets(recipe, work)


def test_a_card_without_them_is_valid() -> None:
    told = {
        "recipe": "r.yaml",
        "recipe_sha256": "0",
        "training_set": "s",
        "training_set_sha256": "0",
        "n_train": 1,
        "seed": 0,
    }
    assert Training.model_validate(told).sets == ()


@pytest.mark.parametrize("use", ["train", "validation", "arcs", "pool"])
def test_a_training_goes_on_with_the_sets_that_it_began_on(made: Made, use: str) -> None:
    recipe, work = made
    refuse_other_sets(recipe, work)
    refuse_other_sets(recipe, work)
    before = json.loads((work.member(recipe) / BEGUN).read_text())
    with h5py.File(work.data(recipe, use), "a") as file:
        file["label"][0] = 1 - file["label"][0]
    with pytest.raises(InputError, match=f"set {use}: expected SHA-256 {before[use]}, on which"):
        refuse_other_sets(recipe, work)
    assert json.loads((work.member(recipe) / BEGUN).read_text()) == before
