"""Fine-tuning: what is loaded, what is new, what stays."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from lenspipe.errors import InputError
from training import fit, network, start
from training.data import Examples, load_images
from training.recipe import MemberRecipe, StartFrom, load_member, parse_recipe

SHAPE = {"image": (2, 16, 16)}


def member(content: dict[str, Any], **changes: Any) -> MemberRecipe:
    recipe = parse_recipe({**content, **changes})
    assert isinstance(recipe, MemberRecipe)
    return recipe


def built(content: dict[str, Any], seed: int, bands: int = 2) -> torch.nn.Module:
    torch.manual_seed(seed)
    return network.build(member(content), {"image": (bands, 16, 16)})


def weights_of(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {key.removeprefix("network."): t.clone() for key, t in model.state_dict().items()}


def test_all_weights_are_loaded_where_all_fit(recipe_content: dict[str, Any]) -> None:
    old, new = built(recipe_content, 1), built(recipe_content, 2)
    begun = start.begin(new, StartFrom(checkpoint="x"), weights_of(old))
    assert not begun.new
    assert all(torch.equal(t, weights_of(old)[key]) for key, t in weights_of(new).items())


def test_a_stem_for_more_bands_and_a_head_are_new(recipe_content: dict[str, Any]) -> None:
    old, new = built(recipe_content, 1), built(recipe_content, 2, bands=5)
    before = weights_of(new)
    choice = StartFrom(checkpoint="x", replace=("stem", "head"))
    begun = start.begin(new, choice, weights_of(old))
    assert {name.split(".")[0] for name in begun.new} == {"features", "head"}
    assert [name for name in begun.new if name.startswith("features")] == ["features.0.weight"]
    for name, tensor in weights_of(new).items():
        wanted = before if name in begun.new else weights_of(old)
        assert torch.equal(tensor, wanted[name]), name


def test_what_does_not_fit_is_one_line(recipe_content: dict[str, Any]) -> None:
    new = built(recipe_content, 2, bands=5)
    given = weights_of(built(recipe_content, 1))
    with pytest.raises(InputError, match=r"features\.0\.weight \(4, 2, 5, 5\) for \(4, 5, 5, 5\)"):
        start.begin(new, StartFrom(checkpoint="x"), given)
    choice = StartFrom(checkpoint="x", replace=("stem",))
    with pytest.raises(InputError, match=r"extra\.weight \(1,\) for none"):
        start.begin(new, choice, {**given, "extra.weight": torch.ones(1)})
    with pytest.raises(InputError, match=r"replace: expected parts out of stem, head, features"):
        start.begin(new, StartFrom(checkpoint="x", replace=("neck",)), given)


@pytest.mark.parametrize("name", ["resnet_narrow", "group_cnn", "lensflow", "cmu_deeplens"])
def test_stems_and_heads_of_other_networks(recipe_content: dict[str, Any], name: str) -> None:
    """With two bands for three, a new stem is all that a network needs; the head is its end."""
    content = {**recipe_content, "architecture": {"name": name}}
    models = [network.build(member(content), {"image": (k, 48, 48)}) for k in (2, 3)]
    begun = start.begin(
        models[1], StartFrom(checkpoint="x", replace=("stem",)), weights_of(models[0])
    )
    assert 0 < len(begun.new) < len(begun.loaded)
    last = list(models[0].state_dict())[-1].removeprefix("network.")
    assert last.startswith(start.beginnings(models[0], ("head",), "replace"))


def test_a_network_on_several_inputs_has_several_stems(recipe_content: dict[str, Any]) -> None:
    parameters = {"width": 0.25, "depth": 0.3, "stem_stride": 1}
    content = {
        **recipe_content,
        "architecture": {"name": "efficientnet_b0", "parameters": parameters},
    }
    model = network.build(member(content), {"nisp": (2, 16, 16), "vis": (2, 32, 32)})
    assert len(start.beginnings(model, ("stem",), "replace")) == 2


@pytest.fixture(scope="module")
def sets(
    tmp_path_factory: pytest.TempPathFactory, make_set: Callable[[Path, int, int], Path]
) -> tuple[Examples, Examples]:
    folder = tmp_path_factory.mktemp("sets")
    return tuple(load_images(make_set(folder / f"{k}.h5", k, 64)) for k in (1, 2))  # type: ignore[return-value]


def test_frozen_parts_stay_to_the_bit_and_the_rest_moves(
    sets: tuple[Examples, Examples], recipe_content: dict[str, Any], tmp_path: Path
) -> None:
    first = fit.fit(member(recipe_content, epochs=1), *sets, tmp_path / "first", device="cpu")
    begin = {"checkpoint": str(tmp_path / "first" / fit.BEST), "freeze": ["features"]}
    tuned = member(recipe_content, epochs=2, name="tuned", start_from=begin)
    after = fit.fit(tuned, *sets, tmp_path / "tuned", device="cpu")
    old, new = weights_of(first.model), weights_of(after.model)
    moved = {name for name in old if not torch.equal(old[name], new[name])}
    assert moved
    assert all(name.startswith("head.") for name in moved)


def test_all_frozen_is_refused(recipe_content: dict[str, Any]) -> None:
    model = built(recipe_content, 1)
    with pytest.raises(InputError, match=r"start_from\.freeze: expected weights that are left"):
        start.freeze(model, ("features", "head"))


def test_a_file_that_is_no_checkpoint_is_one_line(
    recipe_content: dict[str, Any], tmp_path: Path
) -> None:
    (tmp_path / "x.pt").write_bytes(b"no checkpoint")
    for path in (tmp_path / "x.pt", tmp_path / "none.pt"):
        with pytest.raises(InputError, match="checkpoint") as caught:
            start.load_weights(path)
        assert "\n" not in str(caught.value)


def test_another_recipe_is_read_into_this_ones_identity(
    recipe_content: dict[str, Any], tmp_path: Path
) -> None:
    (tmp_path / "toy.yaml").write_text(yaml.safe_dump(recipe_content))
    tuned = {**recipe_content, "name": "tuned", "start_from": {"recipe": "toy.yaml"}}
    (tmp_path / "tuned.yaml").write_text(yaml.safe_dump(tuned))
    found = load_member(tmp_path / "tuned.yaml")
    assert found.start_from is not None
    assert found.start_from.recipe == member(recipe_content)
    (tmp_path / "toy.yaml").write_text(yaml.safe_dump({**recipe_content, "epochs": 9}))
    assert load_member(tmp_path / "tuned.yaml").sha256() != found.sha256()
    loop = {**recipe_content, "start_from": {"recipe": "tuned.yaml"}}
    (tmp_path / "toy.yaml").write_text(yaml.safe_dump(loop))
    with pytest.raises(InputError, match=r"start_from\.recipe: expected another recipe"):
        load_member(tmp_path / "tuned.yaml")
