"""A set's name is another wherever its bytes may be others, and the same elsewhere."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from lenspipe.errors import InputError
from training.recipe import parse_recipe
from training.simulate import identity as module
from training.simulate import instrument, photometry
from training.simulate.hosts import ps1
from training.simulate.identity import identity
from training.workspace import Workspace

BLOCK: dict[str, Any] = {"n": 4, "seed": 1}


def test_what_is_said_by_default_changes_nothing_and_all_else_does(tmp_path: Path) -> None:
    plain = identity(BLOCK)
    assert identity({**BLOCK, "neighbours": 1.6, "theta_e": {"low": 0.6}}) == plain
    changes: list[dict[str, Any]] = [{"n": 5}, {"seed": 2}, {"neighbours": 1.5}]
    changes += [{"instrument": "hsc"}, {"also_hosts_of": ["des"]}]
    assert len({plain, *(identity({**BLOCK, **change}) for change in changes)}) == 6
    with pytest.raises(InputError, match=r"simulate\.dragons"):
        identity({**BLOCK, "dragons": 1})
    with pytest.raises(InputError, match=r"simulate\.data"):
        identity({**BLOCK, "data": str(tmp_path / "none")})


def test_real_data_counts_by_names_and_sizes_and_not_by_its_place(tmp_path: Path) -> None:
    places = [tmp_path / name for name in ("one", "other")]
    for place in places:
        (place / ps1.FILES[0]).parent.mkdir(parents=True)
        (place / ps1.FILES[0]).write_bytes(b"1234")
        (place / "ps1_lenses" / "notes.txt").write_text(place.name)
    one, other = (identity({**BLOCK, "data": str(place)}) for place in places)
    assert one == other != identity(BLOCK)
    (places[1] / ps1.FILES[0]).write_bytes(b"12345")
    assert identity({**BLOCK, "data": str(places[1])}) != one


def test_photometry_counts_its_table_where_it_takes_any(tmp_path: Path) -> None:
    block: dict[str, Any] = {"seed": 1, "data": str(tmp_path)}
    before = identity(block, table=True), identity({**block, "lrg_rows": 0}, table=True)
    (tmp_path / photometry.LRG_TABLE).parent.mkdir(parents=True)
    (tmp_path / photometry.LRG_TABLE).write_bytes(b"rows")
    after = identity(block, table=True), identity({**block, "lrg_rows": 0}, table=True)
    assert [a == b for a, b in zip(before, after, strict=True)] == [False, True]


def test_the_generator_and_its_files_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = identity(BLOCK)
    changed = tmp_path / "ps1.yaml"
    changed.write_text(instrument.file_of("ps1").read_text("utf-8") + "# deeper\n", "utf-8")
    with monkeypatch.context() as patch:
        patch.setattr(module, "GENERATOR_VERSION", module.GENERATOR_VERSION + 1)
        assert identity(BLOCK) != before
    monkeypatch.setattr(instrument, "file_of", lambda name: tmp_path / f"{name}.yaml")
    assert identity(BLOCK) != before


def test_a_workspace_calls_sets_by_their_identity(
    recipe_content: dict[str, Any], tmp_path: Path
) -> None:
    recipe, work = parse_recipe(recipe_content), Workspace(tmp_path)
    path = work.data(recipe, "train")
    assert path.name == f"seed1-{identity(recipe.simulate_block('train'))[:12]}.h5"
    named = {**recipe_content, "simulate": {**recipe_content["simulate"], "neighbours": 1.6}}
    assert work.data(parse_recipe(named), "train") == path
