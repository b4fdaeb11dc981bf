"""Small types over the bus: what a type can hold, and that the graph turns it back into flux."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from lenspipe.errors import InputError
from lenspipe.models.card import ImageInput, read_card, write_card
from lenspipe.models.encode import encode
from lenspipe.models.session import Member
from tests import toy_models
from training.half import with_input_type

SHAPE = (3, 8, 8)
IMAGE = ImageInput(name="image", bands=("g", "r", "i"), size_pixels=8, pixel_scale_arcsec=0.25)


def written(dtype: str, quantum: float | None = None, zero_level: float = 0.0) -> ImageInput:
    changes = {"dtype": dtype, "quantum": quantum, "zero_level": zero_level}
    return ImageInput.model_validate({**IMAGE.model_dump(), **changes})


def decoded(pixels: np.ndarray, image: ImageInput) -> np.ndarray:
    out = np.empty(pixels.shape, image.dtype)
    encode(pixels, image, out)
    values = out.astype(np.float64)
    return values if image.quantum is None else values * image.quantum + image.zero_level


@settings(max_examples=50, deadline=None)
@given(st.lists(st.floats(-1e9, 1e9, width=32), min_size=1), st.sampled_from([1e-3, 0.01, 7.0]))
def test_every_finite_flux_comes_back_within_the_type(fluxes: list[float], quantum: float) -> None:
    """Half a step of an integer, 2^-11 of a float16 (its smallest step below 6e-5); beyond the
    range the ends. Half a step more where a float32 cannot hold the quotient's last digit."""
    pixels = np.asarray(fluxes, np.float32)
    for image in (written("int16", quantum, 3.0), written("uint16", quantum, -20.0)):
        ends = np.iinfo(image.dtype)
        low, high = (end * quantum + image.zero_level for end in (ends.min, ends.max))
        wanted = np.clip(pixels.astype(np.float64), low, high)
        slack = quantum * 0.51 + np.abs(wanted) * 1e-6
        assert (np.abs(decoded(pixels, image) - wanted) <= slack).all()
    wanted = np.clip(pixels.astype(np.float64), -65504, 65504)
    assert (np.abs(decoded(pixels, written("float16")) - wanted) <= abs(wanted) / 2048 + 6e-8).all()


@pytest.mark.parametrize(
    ("image", "tolerance"),
    [
        (written("float16"), 2e-3),  # 192 products of order 0.07, each off by 2^-12 of itself
        (written("int16", 1e-3), 2e-3),  # each pixel off by half of 1e-3
        (written("uint16", 1e-3, -20.0), 2e-3),
        (written("float32"), 1e-5),
    ],
)
@pytest.mark.parametrize("rows", [3, 4, 9])
def test_a_cast_in_the_graph_gives_the_float32_logits(
    tmp_path: Path, image: ImageInput, tolerance: float, rows: int
) -> None:
    toy_models.make_member(tmp_path / "toy.onnx", bias=0.5)
    model = onnx.load(str(tmp_path / "toy.onnx"))
    small, card = with_input_type(model, read_card(tmp_path / "toy.onnx"), {"image": image})
    write_card(small, card, tmp_path / "small.onnx")
    member = Member.load(tmp_path / "small.onnx", "cpu", batch_size=4)
    images = np.random.default_rng(0).normal(size=(rows, *SHAPE)).astype(np.float32)
    wanted = toy_models.expected_logits(images, toy_models.make_weights(SHAPE), 0.5)
    images[1, 0, 0, 0] = np.nan
    found = member.predict({"image": images})
    assert member.image_inputs[0].shape == SHAPE
    assert np.isnan(found[1])
    np.testing.assert_allclose(np.delete(found, 1), np.delete(wanted, 1), atol=tolerance)


def test_card_and_graph_must_agree_on_the_type(tmp_path: Path) -> None:
    toy_models.make_member(tmp_path / "toy.onnx")
    card = read_card(tmp_path / "toy.onnx").model_copy(update={"images": (written("float16"),)})
    write_card(onnx.load(str(tmp_path / "toy.onnx")), card, tmp_path / "other.onnx")
    with pytest.raises(InputError, match=r"input image: expected float16 .* found tensor\(float\)"):
        Member.load(tmp_path / "other.onnx", "cpu")


@pytest.mark.parametrize(
    ("dtype", "quantum", "zero_level"),
    [("int16", None, 0.0), ("float16", 0.1, 0.0), ("float32", None, 1.0), ("int8", 0.1, 0.0)],
)
def test_types_and_steps_belong_together(
    dtype: str, quantum: float | None, zero_level: float
) -> None:
    with pytest.raises(ValidationError):
        written(dtype, quantum, zero_level)
