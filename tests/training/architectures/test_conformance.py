"""Every architecture keeps to the same behaviour; a new file in the package is tested by itself."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from lenspipe.errors import InputError
from training import architectures
from training.architectures.group_cnn import (
    ELEMENTS,
    multiply,
    squares_about_the_centre,
    turn,
)
from training.architectures.layers import Foldable, Shapes
from training.export import check_parity, export_graph, folded

NAMES = architectures.names()
IMAGES = [n for n in NAMES if architectures.load(n).INPUT == "images"]
HALVING = ("group_cnn", "holismokes_cnn", "resnet_narrow")
# Tried in this order; an architecture is tested on those that it does not refuse.
SHAPES: dict[str, list[tuple[int, ...]]] = {
    "images": [(1, 16, 16), (3, 48, 48), (5, 64, 64), (1, 72, 72), (4, 101, 101)],
    "features": [(4,), (11,)],
}
TWO_GRIDS: Shapes = {"vis": (1, 72, 72), "nisp": (3, 33, 33)}
# The same layers, fewer of them: what an export costs grows with their number.
SMALL: dict[str, dict[str, Any]] = {
    "efficientnet_b0": {"width": 0.25, "depth": 0.2},
    "resnet18": {"widths": [8, 16], "blocks": [1, 1], "anti_aliased": True},
    "vit_conv": {"dim": 32, "depth": 2, "pool": "class"},
}
LONG = ("cas_swinburne", "lastro_epfl", "cmu_deeplens", "lensfinder")  # seconds for each export
# Of the logits, relative to 1 + |logit|: the same float32 arithmetic in another order.
PARITY = 1e-4


def shapes_of(name: str) -> list[Shapes]:
    """Inputs that the architecture does not refuse, the smallest first, those on two grids last."""
    fitting: list[Shapes] = []
    tried: list[Shapes] = [{"input": s} for s in SHAPES[architectures.load(name).INPUT]]
    for shapes in (*tried, TWO_GRIDS):
        with contextlib.suppress(InputError):
            architectures.build(name, {}, shapes)
            fitting.append(shapes)
    return fitting


FITTING = {name: shapes_of(name) for name in NAMES}
CASES = [
    pytest.param(name, shapes, id=f"{name}-{'-'.join(map(str, shapes.values()))}")
    for name in NAMES
    for shapes in (*FITTING[name][:3], *(s for s in FITTING[name][3:] if len(s) > 1))
]
SEVERAL = [name for name in NAMES if TWO_GRIDS in FITTING[name]]


def build(name: str, shapes: Shapes, **parameters: Any) -> nn.Module:
    torch.manual_seed(0)
    return architectures.build(name, parameters, shapes)


def drawn(shapes: Shapes, rows: int) -> list[torch.Tensor]:
    return [torch.randn(rows, *shape) for shape in shapes.values()]


def used(model: nn.Module) -> nn.Module:
    """The network as if it had been trained: batch normalisations have seen something."""
    for layer in model.modules():
        if isinstance(layer, nn.BatchNorm1d | nn.BatchNorm2d):
            assert layer.running_mean is not None
            assert layer.running_var is not None
            nn.init.uniform_(layer.running_mean, -0.5, 0.5)
            nn.init.uniform_(layer.running_var, 0.5, 2.0)
    return model.eval()


def test_there_are_images_and_features() -> None:
    assert {"holismokes_cnn", "resnet_narrow", "resnet18", "group_cnn", "vit_conv"} <= set(IMAGES)
    assert set(HALVING) <= set(IMAGES)
    assert "photometry_mlp" in NAMES
    assert "efficientnet_b0" in SEVERAL
    assert all(len(FITTING[name]) >= 2 for name in NAMES)


@pytest.mark.parametrize(("name", "shapes"), CASES)
def test_one_finite_logit_per_row(name: str, shapes: Shapes) -> None:
    model = used(build(name, shapes))
    inputs = drawn(shapes, 3)
    with torch.no_grad():
        logits = model(*inputs)
        alone = torch.cat([model(*(part[k : k + 1] for part in inputs)) for k in range(3)])
    assert logits.shape == (3,)
    assert torch.isfinite(logits).all()
    assert logits.std() > 0
    # Rows do not see one another in `eval`; sums run in another order for another batch size.
    torch.testing.assert_close(logits, alone, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", IMAGES)
def test_any_number_of_bands(name: str) -> None:
    (_, side, _), *_ = FITTING[name][0].values()
    for bands in range(1, 7):
        shapes = {"image": (bands, side, side)}
        model = used(build(name, shapes, **SMALL.get(name, {})))
        with torch.no_grad():
            assert model(*drawn(shapes, 2)).isfinite().tolist() == [True, True]


@pytest.mark.parametrize("name", NAMES)
def test_every_parameter_learns(name: str) -> None:
    for shapes in (FITTING[name][0], FITTING[name][-1]):
        model = build(name, shapes, **SMALL.get(name, {})).train()
        torch.autograd.backward(model(*drawn(shapes, 8)).square().sum())
        silent = [key for key, p in model.named_parameters() if p.grad is None or not p.grad.any()]
        assert silent == []


@pytest.mark.parametrize("name", NAMES)
def test_the_same_seed_builds_the_same_network(name: str) -> None:
    shapes = FITTING[name][0]
    first, second = build(name, shapes).state_dict(), build(name, shapes).state_dict()
    assert all(torch.equal(first[key], second[key]) for key in first)


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=pytest.mark.slow) if n in LONG else n for n in NAMES]
)
def test_onnx_gives_what_torch_gives(name: str, tmp_path: Path) -> None:
    """Of the logits, within PARITY; for other numbers of rows than the graph was traced with."""
    shapes = TWO_GRIDS if name in SEVERAL else FITTING[name][0]
    model = used(build(name, shapes, **SMALL.get(name, {})))
    draw = np.random.default_rng(3)
    inputs = {k: draw.standard_normal((6, *s), np.float32) for k, s in shapes.items()}
    export_graph(model, inputs, tmp_path / "graph.onnx")
    assert check_parity(model, tmp_path / "graph.onnx", inputs) < PARITY


@pytest.mark.parametrize("name", IMAGES)
@pytest.mark.parametrize("shape", [(3, 48, 40), (3, 2, 2), (7,)])
def test_a_size_that_the_arithmetic_forbids_is_refused(name: str, shape: tuple[int, ...]) -> None:
    with pytest.raises(InputError, match=r"^stamps"):
        build(name, {"image": shape})


@pytest.mark.parametrize("name", [n for n in NAMES if n not in SEVERAL])
def test_several_inputs_are_refused_by_networks_for_one(name: str) -> None:
    with pytest.raises(InputError, match=r"one input.* found vis, nisp"):
        build(name, TWO_GRIDS)


@pytest.mark.parametrize("name", SEVERAL)
def test_a_refusal_names_the_input_of_several(name: str) -> None:
    with pytest.raises(InputError, match=r"^stamps\[nisp\]\.size_pixels: expected \d+ or more"):
        build(name, {**TWO_GRIDS, "nisp": (3, 2, 2)})


@pytest.mark.parametrize("name", SEVERAL)
def test_every_input_counts_in_the_order_of_the_shapes(name: str) -> None:
    model = used(build(name, TWO_GRIDS))
    vis, nisp = drawn(TWO_GRIDS, 2)
    with torch.no_grad():
        logits = model(vis, nisp)
        assert (model(vis.flip(0), nisp) - logits).abs().min() > 0
        assert (model(vis, nisp.flip(0)) - logits).abs().min() > 0


@pytest.mark.parametrize("name", HALVING)
@pytest.mark.parametrize("shape", [(3, 47, 47), (3, 4, 4)])
def test_a_halving_without_remainder_needs_an_even_size(name: str, shape: tuple[int, ...]) -> None:
    with pytest.raises(InputError, match=r"^stamps"):
        build(name, {"image": shape})


def test_the_refusal_names_sizes_that_do() -> None:
    with pytest.raises(InputError, match=r"multiple of 8 from 16 up \(16, 24, 32 …\), found 50"):
        build("holismokes_cnn", {"image": (3, 50, 50)})


@pytest.mark.parametrize("name", NAMES)
def test_unknown_parameters_are_refused(name: str) -> None:
    with pytest.raises(InputError, match=r"architecture\.parameters\.width_typo"):
        architectures.parse(name, {"width_typo": 3})


def test_an_unknown_architecture_lists_what_there_is() -> None:
    with pytest.raises(InputError, match=r"group_cnn.*'vgg'"):
        architectures.load("vgg")


RINGS: dict[str, Any] = {"fields": [2, 3, 4], "convolutions": [1, 2, 2], "rings": 3}


@pytest.mark.parametrize("parameters", [{}, RINGS], ids=["plain", "rings"])
def test_group_network_is_the_same_for_all_eight_views(parameters: dict[str, Any]) -> None:
    model = used(build("group_cnn", {"image": (3, 24, 24)}, **parameters).double())
    inputs = torch.randn(4, 3, 24, 24, dtype=torch.float64)
    with torch.no_grad():
        logits = model(inputs)
        assert logits.std() > 1e-6
        for element in range(ELEMENTS):
            # Equal but for the order of sums: some roundings of float64.
            torch.testing.assert_close(model(turn(inputs, element)), logits, rtol=0, atol=1e-12)


def test_rings_tell_the_middle_from_the_rim() -> None:
    plain, ringed = (
        used(build("group_cnn", {"image": (3, 96, 96)}, **{**RINGS, "rings": rings}).double())
        for rings in (1, 3)
    )
    middle, rim = torch.zeros(2, 1, 3, 96, 96, dtype=torch.float64)
    # Five steps of the last scale apart, neither near enough to the edges to feel them.
    middle[..., 46:50, 46:50] = rim[..., 26:30, 46:50] = 5.0
    with torch.no_grad():
        same, other = ((net(middle) - net(rim)).abs().item() for net in (plain, ringed))
    assert same < 1e-12
    assert other > 1e-3


@pytest.mark.parametrize("rows", [4, 5, 6, 7])
def test_every_pixel_is_in_one_ring(rows: int) -> None:
    rings = squares_about_the_centre(rows, rows, 2)
    assert torch.equal(rings.sum(0), torch.ones(rows * rows))
    assert rings[0].sum() == (4 if rows % 2 == 0 else 1)
    for element in range(ELEMENTS):
        assert torch.equal(turn(rings.reshape(2, rows, rows), element).flatten(1), rings)


def test_rings_and_convolutions_that_do_not_fit_are_refused() -> None:
    with pytest.raises(InputError, match=r"size_pixels: expected a multiple of 4 from 24 up"):
        build("group_cnn", {"image": (3, 16, 16)}, **RINGS)
    with pytest.raises(InputError, match=r"convolutions: expected 3, as many as fields"):
        build("group_cnn", {"image": (3, 24, 24)}, **{**RINGS, "convolutions": [1, 2]})


@pytest.mark.parametrize("parameters", [{}, RINGS], ids=["plain", "rings"])
def test_group_convolutions_are_exported_as_ordinary_ones(parameters: dict[str, Any]) -> None:
    model = used(build("group_cnn", {"image": (3, 24, 24)}, **parameters))
    plain, x = folded(model), torch.randn(4, 3, 24, 24)
    assert any(isinstance(layer, Foldable) for layer in model.modules())
    assert not any(isinstance(layer, Foldable) for layer in plain.modules())
    with torch.no_grad():
        # The same sums in another order.
        torch.testing.assert_close(plain(x), model(x), rtol=1e-5, atol=1e-5)


def test_a_plain_network_is_not() -> None:
    model = build("holismokes_cnn", {"image": (3, 24, 24)}).eval()
    inputs = torch.randn(4, 3, 24, 24)
    with torch.no_grad():
        assert (model(turn(inputs, 1)) - model(inputs)).abs().max() > 1e-5


def test_products_of_elements_are_what_they_do() -> None:
    image = torch.arange(9.0).reshape(3, 3)
    for first in range(ELEMENTS):
        for second in range(ELEMENTS):
            both = turn(image, multiply(first, second))
            assert torch.equal(turn(turn(image, second), first), both)
