"""Every architecture keeps to the same behaviour; a new file in the package is tested by itself."""

from __future__ import annotations

import contextlib

import pytest
import torch

from lenspipe.errors import InputError
from training import architectures
from training.architectures.group_cnn import ELEMENTS, multiply, turn

IMAGES = [n for n in architectures.names() if architectures.load(n).INPUT == "images"]
HALVING = ("group_cnn", "holismokes_cnn", "resnet_narrow")
SHAPES: dict[str, list[tuple[int, ...]]] = {
    "images": [(1, 16, 16), (3, 48, 48), (5, 64, 64), (1, 72, 72), (4, 101, 101)],
    "features": [(4,), (11,)],
}


def shapes_of(name: str) -> list[tuple[int, ...]]:
    """Shapes that the architecture does not refuse, the smallest first."""
    fitting = []
    for shape in SHAPES[architectures.load(name).INPUT]:
        with contextlib.suppress(InputError):
            architectures.build(name, {}, {"input": shape})
            fitting.append(shape)
    return fitting


CASES = [(n, s) for n in architectures.names() for s in shapes_of(n)[:3]]


def build(name: str, shape: tuple[int, ...]) -> torch.nn.Module:
    torch.manual_seed(0)
    return architectures.build(name, {}, {"input": shape})


def test_there_are_images_and_features() -> None:
    assert {"holismokes_cnn", "resnet_narrow", "group_cnn"} <= set(IMAGES)
    assert set(HALVING) <= set(IMAGES)
    assert "photometry_mlp" in architectures.names()
    assert all(sum(n == name for n, _ in CASES) >= 2 for name in architectures.names())


@pytest.mark.parametrize(("name", "shape"), CASES)
def test_one_finite_logit_per_row(name: str, shape: tuple[int, ...]) -> None:
    model = build(name, shape).eval()
    inputs = torch.randn(3, *shape)
    with torch.no_grad():
        logits = model(inputs)
        alone = torch.cat([model(row[None]) for row in inputs])
    assert logits.shape == (3,)
    assert torch.isfinite(logits).all()
    # Rows do not see one another in `eval`; sums run in another order for another batch size.
    torch.testing.assert_close(logits, alone, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", architectures.names())
def test_every_parameter_learns(name: str) -> None:
    model = build(name, shape := shapes_of(name)[0]).train()
    torch.autograd.backward(model(torch.randn(8, *shape)).square().sum())
    silent = [key for key, p in model.named_parameters() if p.grad is None or not p.grad.any()]
    assert silent == []


@pytest.mark.parametrize("name", architectures.names())
def test_the_same_seed_builds_the_same_network(name: str) -> None:
    shape = shapes_of(name)[0]
    first, second = build(name, shape).state_dict(), build(name, shape).state_dict()
    assert all(torch.equal(first[key], second[key]) for key in first)


@pytest.mark.parametrize("name", IMAGES)
@pytest.mark.parametrize("shape", [(3, 48, 40), (3, 2, 2), (7,)])
def test_a_size_that_the_arithmetic_forbids_is_refused(name: str, shape: tuple[int, ...]) -> None:
    with pytest.raises(InputError, match=r"^stamps"):
        build(name, shape)


@pytest.mark.parametrize("name", HALVING)
@pytest.mark.parametrize("shape", [(3, 47, 47), (3, 4, 4)])
def test_a_halving_without_remainder_needs_an_even_size(name: str, shape: tuple[int, ...]) -> None:
    with pytest.raises(InputError, match=r"^stamps"):
        build(name, shape)


def test_the_refusal_names_sizes_that_do() -> None:
    with pytest.raises(InputError, match=r"multiple of 8 from 16 up \(16, 24, 32 …\), found 50"):
        build("holismokes_cnn", (3, 50, 50))


@pytest.mark.parametrize("name", architectures.names())
def test_unknown_parameters_are_refused(name: str) -> None:
    with pytest.raises(InputError, match=r"architecture\.parameters\.width_typo"):
        architectures.parse(name, {"width_typo": 3})


def test_an_unknown_architecture_lists_what_there_is() -> None:
    with pytest.raises(InputError, match=r"group_cnn.*'vgg'"):
        architectures.load("vgg")


def test_group_network_is_the_same_for_all_eight_views() -> None:
    model = build("group_cnn", (3, 24, 24)).double().eval()
    inputs = torch.randn(4, 3, 24, 24, dtype=torch.float64)
    with torch.no_grad():
        logits = model(inputs)
        assert logits.std() > 1e-6
        for element in range(ELEMENTS):
            # Equal but for the order of sums: some roundings of float64.
            torch.testing.assert_close(model(turn(inputs, element)), logits, rtol=0, atol=1e-12)


def test_a_plain_network_is_not() -> None:
    model = build("holismokes_cnn", (3, 24, 24)).eval()
    inputs = torch.randn(4, 3, 24, 24)
    with torch.no_grad():
        assert (model(turn(inputs, 1)) - model(inputs)).abs().max() > 1e-5


def test_products_of_elements_are_what_they_do() -> None:
    image = torch.arange(9.0).reshape(3, 3)
    for first in range(ELEMENTS):
        for second in range(ELEMENTS):
            both = turn(image, multiply(first, second))
            assert torch.equal(turn(turn(image, second), first), both)
