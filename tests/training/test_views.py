"""A logit that is a mean over views: what a view is, and that the exported graph takes them all."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from lenspipe.errors import InputError
from training.export import check_parity, export_graph, onnx_logits
from training.recipe import MemberRecipe, Views, merged, parse_recipe
from training.views import Viewed, seen
from training.workspace import Workspace

QUARTERS = (0.0, 90.0, 180.0, 270.0)


class Corner(nn.Module):
    """As far from the same in all views as can be: pixels of one corner, bent."""

    def forward(self, *images: Tensor) -> Tensor:
        parts = [torch.tanh(image[:, 0, 0, 1] + 2.0 * image[:, -1, 3, 2]) for image in images]
        return torch.stack(parts).sum(dim=0)


def stamps(size: int, rows: int = 4, seed: int = 0) -> Tensor:
    pixels = np.random.default_rng(seed).normal(size=(rows, 2, size, size))
    return torch.from_numpy(pixels.astype(np.float32))


@given(st.sampled_from(QUARTERS), st.booleans(), st.integers(5, 9))
def test_quarter_turns_and_mirrors_move_pixels_and_change_none(
    degrees: float, mirrored: bool, size: int
) -> None:
    image = stamps(size)
    expected = image.numpy()[..., ::-1] if mirrored else image.numpy()
    # From x to y: rows run downwards, so numpy's turn is the other one.
    expected = np.rot90(expected, -round(degrees / 90.0), (-2, -1))
    np.testing.assert_array_equal(seen(image, degrees, mirrored).numpy(), expected)


@given(st.floats(-360.0, 720.0), st.booleans())
def test_a_source_goes_to_where_the_angle_says(degrees: float, mirrored: bool) -> None:
    size, x, y, width = 48, 9.0, -4.0, 2.0

    def blob(x: float, y: float) -> np.ndarray:
        line = np.arange(size) - 0.5 * (size - 1)
        r2 = (line[None, :] - x) ** 2 + (line[:, None] - y) ** 2
        return np.exp(-0.5 * r2 / width**2).astype(np.float32)

    turn = np.radians(degrees)
    start = -x if mirrored else x
    there = (
        np.cos(turn) * start - np.sin(turn) * y,
        np.sin(turn) * start + np.cos(turn) * y,
    )
    found = seen(torch.from_numpy(blob(x, y))[None, None], degrees, mirrored)[0, 0].numpy()
    np.testing.assert_allclose(found, blob(*there), atol=0.03)


@settings(max_examples=20)
@given(st.sampled_from(QUARTERS), st.booleans(), st.integers(0, 100))
def test_over_all_views_the_logit_is_the_same_for_each_of_them(
    degrees: float, mirrored: bool, seed: int
) -> None:
    network = Viewed(Corner(), Views(degrees=QUARTERS, mirrored=True))
    image = stamps(6, seed=seed)
    turned = network(seen(image, degrees, mirrored))
    np.testing.assert_allclose(turned.numpy(), network(image).numpy(), atol=1e-6)


def test_it_is_the_mean_over_views_that_all_inputs_share() -> None:
    images = stamps(6), stamps(9, seed=1)
    views = Views(degrees=(0.0, 30.0), mirrored=True)
    each = [
        Corner()(*(seen(image, degrees, mirrored) for image in images))
        for degrees in views.degrees
        for mirrored in (False, True)
    ]
    found = Viewed(Corner(), views)(*images)
    np.testing.assert_allclose(found.numpy(), torch.stack(each).mean(0).numpy(), atol=1e-6)


def test_the_graph_gives_what_torch_gives_for_any_batch(tmp_path: Path) -> None:
    images = {"vis": stamps(9, 7).numpy(), "nisp": stamps(6, 7, seed=1).numpy()}
    network = Viewed(Corner(), Views(degrees=(0.0, 45.0, 90.0), mirrored=True))
    export_graph(network, images, tmp_path / "graph.onnx")
    check_parity(network, tmp_path / "graph.onnx", images)
    model = onnx.load(tmp_path / "graph.onnx")
    modes = {
        a.s
        for n in model.graph.node
        for a in n.attribute
        if n.op_type == "GridSample" and a.name == "mode"
    }
    assert modes == {b"bicubic"}  # OpenVINO knows no other word
    one = {name: pixels[:1] for name, pixels in images.items()}
    all_rows = onnx_logits(tmp_path / "graph.onnx", images)
    np.testing.assert_allclose(onnx_logits(tmp_path / "graph.onnx", one), all_rows[:1], atol=1e-6)


def member(content: dict[str, Any], **changes: Any) -> MemberRecipe:
    found = parse_recipe(merged(content, changes))
    assert isinstance(found, MemberRecipe)
    return found


def test_views_are_of_the_export_and_not_of_the_weights(
    recipe_content: dict[str, Any], tmp_path: Path
) -> None:
    plain, viewed = (member(recipe_content, views=v) for v in (None, {"degrees": [0, 45]}))
    work = Workspace(tmp_path)
    assert plain.sha256() == viewed.sha256()
    assert work.best(plain) == work.best(viewed)
    assert work.graph(plain) != work.graph(viewed)
    assert work.graph(viewed) != work.graph(member(recipe_content, views={"degrees": [0, 30]}))


@pytest.mark.parametrize(
    ("views", "message"),
    [
        ({"degrees": [0, 360]}, "expected each angle once, found 0.0, 360.0"),
        ({"degrees": []}, r"views\.degrees: "),
        ({"mirror": True}, r"views\.mirror: expected a known key"),
    ],
)
def test_views_that_cannot_be_are_refused(
    recipe_content: dict[str, Any], views: dict[str, Any], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        member(recipe_content, views=views)
