from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lenspipe.errors import InputError
from lenspipe.models import normalise

PARAMETERS: dict[str, dict[str, Any]] = {
    "asinh": {"softening": [1.0, 2.0, 5.0], "gain": 0.5},
    "sqrt": {"scale": [10.0]},
    "clip_scale": {"low": -2.0, "high": 30.0},
    "zscale": {},
}


@pytest.fixture
def images() -> np.ndarray:
    drawn = np.random.default_rng(1).normal(3.0, 40.0, (4, 3, 9, 9))
    return drawn.astype(np.float32)


def test_every_function_is_tried() -> None:
    assert set(PARAMETERS) == set(normalise.FUNCTIONS)


@pytest.mark.parametrize("name", PARAMETERS)
def test_shape_type_and_rows_are_kept(name: str, images: np.ndarray) -> None:
    done = normalise.apply(name, PARAMETERS[name], images, np)
    assert done.shape == images.shape
    assert done.dtype == np.float32
    alone = normalise.apply(name, PARAMETERS[name], images[2:3], np)
    np.testing.assert_array_equal(alone[0], done[2])


@pytest.mark.parametrize("name", sorted(set(PARAMETERS) - normalise.ARRAY_ONLY))
def test_torch_and_numpy_agree(name: str, images: np.ndarray) -> None:
    """Same formula in float32; libraries differ by roundings of asinh and sqrt, so 1e-6."""
    torch = pytest.importorskip("torch", reason="torch is not installed")
    traced = normalise.apply(name, PARAMETERS[name], torch.from_numpy(images), torch)
    wanted = normalise.apply(name, PARAMETERS[name], images, np)
    np.testing.assert_allclose(traced.numpy(), wanted, rtol=1e-6, atol=1e-6)


def test_zscale_is_not_for_the_graph(images: np.ndarray) -> None:
    torch = pytest.importorskip("torch", reason="torch is not installed")
    with pytest.raises(InputError, match=r"normalisation\.name"):
        normalise.apply("zscale", {}, torch.from_numpy(images), torch)


def test_asinh_by_its_formula(images: np.ndarray) -> None:
    done = normalise.apply("asinh", PARAMETERS["asinh"], images, np)
    np.testing.assert_allclose(done[1, 2], np.arcsinh(images[1, 2] / 5.0) * 0.5, rtol=1e-6)


def test_sqrt_by_its_formula() -> None:
    pixels = np.array([-40.0, 0.0, 90.0], np.float32).reshape(1, 1, 1, 3)
    done = normalise.apply("sqrt", {"scale": [10.0]}, pixels, np)
    np.testing.assert_allclose(done.ravel(), [-2.0, 0.0, 3.0], rtol=1e-6)


@settings(max_examples=30, deadline=None)
@given(
    st.sampled_from(["asinh", "sqrt", "clip_scale"]),
    st.lists(st.floats(-1e6, 1e6, width=32), min_size=2, max_size=20),
)
def test_brighter_never_becomes_fainter(name: str, fluxes: list[float]) -> None:
    pixels = np.sort(np.asarray(fluxes, np.float32)).reshape(1, 1, 1, -1)
    parameters = {**PARAMETERS["asinh"], "softening": [2.0]} if name == "asinh" else None
    done = normalise.apply(name, parameters or PARAMETERS[name], pixels, np).ravel()
    assert (np.diff(done) >= 0).all()


@pytest.mark.parametrize(
    ("name", "parameters", "field"),
    [
        ("arcsinh", {}, "normalisation.name"),
        ("asinh", {"softening": [1.0], "offset": 2.0}, "normalisation.offset"),
        ("asinh", {"softening": [0.0]}, "normalisation.softening"),
        ("asinh", {}, "normalisation.softening"),
        ("asinh", {"softening": [1.0, 2.0]}, "normalisation.softening"),
        ("clip_scale", {"low": 1.0, "high": 1.0}, "normalisation"),
    ],
)
def test_refused(name: str, parameters: dict[str, Any], field: str, images: np.ndarray) -> None:
    with pytest.raises(InputError) as refused:
        normalise.apply(name, parameters, images, np)
    assert refused.value.field.startswith(field)
    assert "\n" not in str(refused.value)
