"""A network on two pixel grids: read, trained, exported, opened by lenspipe, explained."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch

from lenspipe.errors import InputError
from lenspipe.models.card import Metric, read_card
from lenspipe.models.ensemble import load_ensemble
from lenspipe.models.session import Member
from training import augmentations, explain, fit, network
from training.data import Examples, load_images, rows_of
from training.export import PARITY, card_of, check_parity, export_graph, ship
from training.half import make_half
from training.metrics import Curve
from training.recipe import MemberRecipe, Named, parse_recipe

VIS, NISP = (1, 32, 32), (2, 17, 17)
OWN = {
    "nisp": {"name": "sqrt", "parameters": {"scale": [0.5, 2.0]}},
    "vis": {"name": "asinh", "parameters": {"softening": [1.0]}},
}


def write_set(path: Path, seed: int, rows: int = 64) -> Path:
    """A lens is a brighter middle in VIS, and a bluer one in NISP."""
    draw = np.random.default_rng(seed)
    label = (np.arange(rows) % 2).astype(np.uint8)
    vis = draw.normal(size=(rows, *VIS)).astype(np.float32)
    nisp = draw.normal(size=(rows, *NISP)).astype(np.float32)
    vis[:, :, 12:20, 12:20] += 3.0 * label[:, None, None, None]
    nisp[:, 0, 6:11, 6:11] += 3.0 * label[:, None, None]
    with h5py.File(path, "w") as file:
        file["label"] = label
        grids = (("vis", vis, ["VIS"], 0.1), ("nisp", nisp, ["Y", "H"], 0.3))
        for name, pixels, bands, scale in grids:
            grid = file.create_dataset(f"images_{name}", data=pixels)
            grid.attrs["bands"], grid.attrs["pixel_scale_arcsec"] = bands, scale
        file.attrs["zero_point_mag"] = 25.0
        file["images_nisp"].attrs["zero_point_mag"] = 24.5
    return path


def recipe(content: dict[str, Any], **changes: Any) -> MemberRecipe:
    parameters = {"width": 0.1, "depth": 0.1, "stem_stride": 1, "joint": 8, "drop_path": 0.0}
    made = parse_recipe(
        {
            **content,
            "name": "toy-euclid",
            "architecture": {"name": "efficientnet_b0", "parameters": parameters},
            "normalisation": OWN,
            "epochs": 8,
            "batch_size": 16,
            "ema_decay": 0.0,
            **changes,
        }
    )
    assert isinstance(made, MemberRecipe)
    return made


@pytest.fixture
def examples(tmp_path: Path) -> Examples:
    return load_images(write_set(tmp_path / "set.h5", 1))


def test_a_set_on_several_grids_is_read(examples: Examples) -> None:
    assert examples.shapes == {"nisp": NISP, "vis": VIS}
    nisp, vis = examples.specs.values()
    assert (nisp.bands, nisp.size_pixels, nisp.pixel_scale_arcsec) == (("Y", "H"), 17, 0.3)
    assert (vis.bands, vis.size_pixels, vis.pixel_scale_arcsec) == (("VIS",), 32, 0.1)
    assert (nisp.zero_point_mag, vis.zero_point_mag) == (24.5, 25.0)


def spoil(path: Path, name: str) -> None:
    with h5py.File(path, "a") as file:
        if name == "both":
            file["images"] = file["images_vis"][:]
        elif name == "neither":
            del file["images_vis"], file["images_nisp"]
        elif name == "bands":
            del file["images_nisp"].attrs["bands"]
        elif name == "rows":
            short = file["images_vis"][:9]
            del file["images_vis"]
            file["images_vis"] = short
            file["images_vis"].attrs.update(file["images_nisp"].attrs)
        else:
            file["images_vis"][3, 0, 0, 0] = np.nan


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("both", r"`images`, or `images_NAME` for each input, found images, images_nisp, images_v"),
        ("neither", r"`images`, or `images_NAME` for each input, found none"),
        ("bands", "input nisp: expected an attribute `bands`"),
        ("rows", "input vis: expected 64 rows, as many as labels, found 9"),
        ("nan", "input vis: expected finite pixels"),
    ],
)
def test_what_is_wrong_with_a_set_is_named(tmp_path: Path, name: str, message: str) -> None:
    path = write_set(tmp_path / "set.h5", 1)
    spoil(path, name)
    with pytest.raises(InputError, match=message):
        load_images(path)


def test_lenspipe_scores_as_training_does(
    examples: Examples, recipe_content: dict[str, Any], tmp_path: Path
) -> None:
    """Of the logits, within PARITY of 1 + |logit|: float32 sums in another order, no more."""
    made = recipe(recipe_content)
    fitted = fit.fit(made, examples, examples, tmp_path / "fit", device="cpu")
    graph, shipped = tmp_path / "graph.onnx", tmp_path / "toy-euclid.onnx"
    export_graph(fitted.model, examples.inputs, graph)
    assert check_parity(fitted.model, graph, examples.inputs) <= PARITY
    figure = {"auroc": Metric(value=0.9, interval=(0.8, 1.0), n_positives=32, n_negatives=32)}
    ship(graph, card_of(made, examples, (), metrics=figure), shipped)
    with torch.no_grad():
        wanted = fitted.model(*map(torch.from_numpy, examples.inputs.values())).numpy()
    assert Curve(wanted, examples.positive).auroc() > 0.9
    assert wanted.std() > 0.1

    card = read_card(shipped)
    assert [image.spec() for image in card.images] == list(examples.specs.values())
    assert card.normalisation is None
    own = {image.name: image.normalisation for image in card.images}
    assert {name: found and found.name for name, found in own.items()} == {
        "nisp": "sqrt",
        "vis": "asinh",
    }
    found = Member.load(shipped, "cpu", batch_size=16).predict(examples.inputs)
    np.testing.assert_allclose(found, wanted, rtol=PARITY, atol=PARITY)
    ensemble = load_ensemble(str(shipped), provider="cpu", batch_size=16)
    assert ensemble.inputs == tuple(examples.specs.values())
    reordered = {name: examples.inputs[name] for name in ("vis", "nisp")}
    scored = ensemble.score(reordered)
    np.testing.assert_allclose(scored.score, wanted, rtol=PARITY, atol=PARITY)

    assert explain.draw_maps(graph, examples, 2, tmp_path / "maps.png").stat().st_size > 5000
    half = tmp_path / "half.onnx"
    # float16 keeps 11 bits through seven blocks; logits here are of order 1.
    assert make_half(shipped, half, rows_of(examples.inputs, slice(8))) < 0.05
    assert [image.dtype for image in read_card(half).images] == ["float16", "float16"]


def test_every_input_is_normalised_by_its_own(
    examples: Examples, recipe_content: dict[str, Any]
) -> None:
    model = network.build(recipe(recipe_content), examples.shapes)
    seen: list[tuple[torch.Tensor, ...]] = []
    inner = model.get_submodule("network")
    inner.register_forward_pre_hook(lambda _, given: seen.append(given))
    model.eval()(torch.full((1, *NISP), -8.0), torch.full((1, *VIS), 3.0))
    nisp, vis = seen[0]
    torch.testing.assert_close(nisp[0, :, 0, 0], torch.tensor([-4.0, -2.0]))
    torch.testing.assert_close(vis[0, 0, 0, 0], torch.asinh(torch.tensor(3.0)))


def test_one_normalisation_serves_all_inputs(recipe_content: dict[str, Any]) -> None:
    shared = recipe(recipe_content, normalisation=OWN["vis"]).normalisation
    assert isinstance(shared, Named)
    assert network.normalisation_of(shared, ("nisp", "vis")) == {"nisp": shared, "vis": shared}


@pytest.mark.parametrize(
    ("normalisation", "message"),
    [
        ({"vis": OWN["vis"]}, r"normalisation: expected .*each of nisp, vis, found vis"),
        (OWN["nisp"], r"normalisation\.scale: expected 1 or 1 values"),
    ],
)
def test_a_normalisation_that_does_not_fit_is_refused(
    examples: Examples,
    recipe_content: dict[str, Any],
    normalisation: dict[str, Any],
    message: str,
) -> None:
    made = recipe(recipe_content, normalisation=normalisation)
    with pytest.raises(InputError, match=message):
        network.build(made, examples.shapes)


@pytest.mark.parametrize(
    ("normalisation", "message"),
    [
        ({**OWN, "nisp": {"name": "zscale"}}, r"normalisation\.nisp: .*the graph can hold"),
        ({**OWN, "vis": {"name": "asinh", "typo": 1}}, r"normalisation\.vis\.typo: .*known key"),
        ({"name": "asinh", "typo": 1}, r"normalisation\.typo: .*known key"),
        (3, "normalisation: expected a mapping of keys to values, found 3"),
    ],
)
def test_a_mistake_in_a_normalisation_is_one_line(
    recipe_content: dict[str, Any], normalisation: Any, message: str
) -> None:
    with pytest.raises(InputError, match=message) as caught:
        recipe(recipe_content, normalisation=normalisation)
    assert "\n" not in str(caught.value)


def test_inputs_of_a_source_are_turned_alike() -> None:
    draws = torch.Generator().manual_seed(1)
    one = torch.arange(2.0 * 16).reshape(2, 1, 4, 4).repeat(8, 1, 1, 1)
    turn = augmentations.build([("d4", {})])
    same = turn({"a": one, "b": one.clone()}, {"a": 0.1, "b": 0.3}, draws)
    assert torch.equal(same["a"], same["b"])
    assert len({tuple(view.flatten().tolist()) for view in same["a"]}) > 4
    alone = turn({"a": one}, {"a": 0.1}, draws)
    assert not torch.equal(alone["a"], same["a"])  # the generator went on
