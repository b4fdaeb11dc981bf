"""Every defect of an image, held to the same behaviour."""

from __future__ import annotations

import numpy as np
import pytest

from lenspipe.errors import InputError
from training.simulate import defects
from training.simulate.observe import typical_conditions

SEEN = typical_conditions("ps1")


def sky(seed: int, size: int = 48) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return (SEEN.sky_rms[:, None, None] * rng.normal(size=(3, size, size))).astype(np.float32)


@pytest.mark.parametrize("kind", defects.names())
@pytest.mark.parametrize("size", [32, 49])
def test_a_defect_shows_and_is_the_same_from_the_same_seed(kind: str, size: int) -> None:
    for seed in range(12):
        before, one, two = (sky(1, size) for _ in range(3))
        for image in (one, two):
            defects.apply(np.random.default_rng(seed), kind, image, SEEN)
        assert one.shape == before.shape
        assert one.dtype == np.float32
        assert np.isfinite(one).all()
        assert (one != before).any()
        np.testing.assert_array_equal(one, two)


@pytest.mark.parametrize("kind", sorted(set(defects.names()) - {"masked_pixels"}))
def test_what_adds_light_can_be_seen_in_most_images(kind: str) -> None:
    seen = []
    for seed in range(20):
        image, before = sky(2), sky(2)
        defects.apply(np.random.default_rng(seed), kind, image, SEEN)
        added = (image - before) / SEEN.sky_rms[:, None, None]
        seen.append(added.max() > 3.0)
    assert np.mean(seen) > 0.7


def test_a_trail_crosses_one_band_from_edge_to_edge() -> None:
    for seed in range(8):
        image, before = sky(3), sky(3)
        defects.apply(np.random.default_rng(seed), "satellite_trail", image, SEEN)
        touched = np.abs(image - before) > 1e-3 * SEEN.sky_rms[:, None, None]
        assert touched.any(axis=(1, 2)).sum() == 1
        y, x = np.nonzero(touched.any(axis=0))
        assert max(np.ptp(y), np.ptp(x)) >= 40


def test_lost_pixels_are_filled_with_the_bands_median() -> None:
    rng = np.random.default_rng(4)
    for _ in range(20):
        image = rng.normal(0, 1, (3, 48, 48)).astype(np.float32)
        before = image.copy()
        defects.apply(rng, "masked_pixels", image, SEEN)
        changed = image != before
        assert changed.any()
        for band, was, gone in zip(image, before, changed, strict=True):
            if gone.any():
                assert 48 <= gone.sum() <= 48 * 10
                np.testing.assert_array_equal(np.unique(band[gone]), [np.median(was[~gone])])


def test_an_unknown_kind_is_an_error() -> None:
    with pytest.raises(InputError, match="dragon"):
        defects.apply(np.random.default_rng(0), "dragon", sky(0), SEEN)
