from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest

from lenspipe.models import explain
from lenspipe.models.ensemble import load_ensemble
from tests import toy_models

SIZE = 9


def ring_score(images: Mapping[str, np.ndarray]) -> np.ndarray:
    """A finder that adds up the light between 2 and 3 pixels from the centre."""
    y, x = np.indices((SIZE, SIZE)) - (SIZE - 1) / 2
    ring = (np.hypot(y, x) >= 2) & (np.hypot(y, x) < 3)
    return np.asarray(images["image"][:, :, ring].sum(axis=(1, 2)), np.float32)


def ring_images(rows: int) -> np.ndarray:
    y, x = np.indices((SIZE, SIZE)) - (SIZE - 1) / 2
    ring = (np.hypot(y, x) >= 2) & (np.hypot(y, x) < 3)
    images = np.zeros((rows, 2, SIZE, SIZE), np.float32)
    images[:, :, ring] = np.arange(1, rows + 1)[:, None, None]
    return images


def test_annuli_find_the_ring_and_nothing_else() -> None:
    masks = explain.annular_masks(SIZE, 1.0)
    assert (masks.sum(axis=0) == 1).all()
    images = ring_images(3)
    found = explain.occlusion_map(ring_score, {"image": images}, masks, "image")
    wanted = np.where(images[:, 0] > 0, ring_score({"image": images})[:, None, None], 0.0)
    np.testing.assert_allclose(found, wanted, rtol=1e-6)


def test_single_pixels_give_the_gradient_of_a_linear_network(tmp_path: Path) -> None:
    """Hiding pixel p of a linear network takes w (x - sky) away, in every band."""
    toy_models.make_member(tmp_path / "a.onnx", size=SIZE)
    ensemble = load_ensemble(str(tmp_path / "a.onnx"), provider="cpu", batch_size=16)
    images = np.random.default_rng(0).normal(size=(2, 3, SIZE, SIZE)).astype(np.float32)
    found = explain.occlusion_map(
        lambda asked: ensemble.score(asked, full=True).score,
        {"image": images},
        explain.square_masks(SIZE, 1, 1),
        "image",
        rows_per_call=50,
    )
    above_sky = images - np.median(images, axis=(2, 3), keepdims=True)
    wanted = (toy_models.make_weights((3, SIZE, SIZE)) * above_sky).sum(axis=1)
    np.testing.assert_allclose(found, wanted, atol=1e-5)


@pytest.mark.parametrize(("patch", "step"), [(3, 2), (4, 4), (9, 1)])
def test_squares_cover_the_stamp(patch: int, step: int) -> None:
    masks = explain.square_masks(SIZE, patch, step)
    assert masks.any(axis=0).all()
    assert (masks.sum(axis=(1, 2)) == patch**2).all()


def test_calls_stay_small_and_change_nothing() -> None:
    images = {"image": ring_images(3)}
    masks = explain.square_masks(SIZE, 3, 1)
    rows: list[int] = []

    def counted(asked: Mapping[str, np.ndarray]) -> np.ndarray:
        rows.append(len(asked["image"]))
        return ring_score(asked)

    small = explain.occlusion_map(counted, images, masks, "image", rows_per_call=10)
    assert max(rows) <= 10
    np.testing.assert_allclose(
        small, explain.occlusion_map(ring_score, images, masks, "image"), rtol=1e-6
    )


def test_a_row_without_a_score_has_no_map() -> None:
    images = ring_images(2)
    images[1] = np.nan
    found = explain.occlusion_map(
        ring_score, {"image": images}, explain.annular_masks(SIZE, 2.0), "image"
    )
    assert np.isnan(found[1]).all()
    assert np.isfinite(found[0]).all()


def test_other_inputs_stay_as_they_are() -> None:
    seen: list[np.ndarray] = []

    def score(asked: Mapping[str, np.ndarray]) -> np.ndarray:
        seen.append(asked["other"])
        return ring_score(asked)

    images = {"image": ring_images(2), "other": np.arange(2, dtype=np.float32)[:, None]}
    explain.occlusion_map(score, images, explain.annular_masks(SIZE, 3.0), "image")
    assert [sorted(set(other.ravel())) for other in seen] == [[0.0, 1.0]] * 2


@pytest.mark.parametrize(("patch", "step"), [(3, 4), (0, 0), (10, 1)])
def test_patches_that_leave_gaps_are_refused(patch: int, step: int) -> None:
    with pytest.raises(ValueError, match="expected 1 <= step"):
        explain.square_masks(SIZE, patch, step)
