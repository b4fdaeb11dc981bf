from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lenspipe.cutouts.quality import look, mask_rejects, repair


def _stamps(n: int = 4, side: int = 6) -> np.ndarray:
    return np.random.default_rng(1).normal(size=(n, side, side)).astype(np.float32)


def test_good_stamps_are_left_as_they_are() -> None:
    stamps = _stamps()
    before = stamps.copy()
    verdict = repair(stamps, 0.25)
    np.testing.assert_array_equal(stamps, before)
    assert len(verdict.bad_pixels) == len(verdict.constant) == 0


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 36), st.floats(0.0, 1.0), st.sampled_from([np.nan, np.inf, -np.inf]))
def test_bad_pixels_take_the_median_or_the_row_fails(bad: int, limit: float, value: float) -> None:
    stamps = _stamps()
    flat = stamps.reshape(4, -1)
    flat[2, :bad] = value
    good = flat[2, bad:].copy()
    verdict = repair(stamps, limit)
    fails = bad / 36 > limit or bad == 36
    assert verdict.bad_pixels.tolist() == ([2] if fails else [])
    assert np.isfinite(stamps).all()
    np.testing.assert_array_equal(flat[2, bad:], good)
    if not fails and bad:
        np.testing.assert_allclose(flat[2, :bad], np.median(good), rtol=1e-6)


def test_as_many_bad_pixels_as_allowed_are_allowed() -> None:
    for bad in range(36):
        stamps = _stamps()
        stamps.reshape(4, -1)[2, :bad] = np.nan
        assert repair(stamps, bad / 36).bad_pixels.tolist() == []


def test_equal_pixels_are_a_constant_image_with_and_without_bad_ones() -> None:
    stamps = _stamps()
    stamps[0] = 7.0
    stamps[1] = 7.0
    stamps[1, 0, 0] = np.nan
    stamps[3] = np.nan
    verdict = repair(stamps, 0.25)
    assert verdict.constant.tolist() == [0, 1]
    assert verdict.bad_pixels.tolist() == [3]


def test_no_rows_have_no_faults() -> None:
    glance = look(np.empty((0, 3, 3), np.float32))
    assert len(glance.bad) == len(glance.constant) == len(glance.largest) == 0


def test_mask_bits_pick_planes_and_none_means_any() -> None:
    mask = np.array([0, 1, 2, 4, 6])
    assert mask_rejects(mask, ()).tolist() == [False, True, True, True, True]
    assert mask_rejects(mask, (1,)).tolist() == [False, False, True, False, True]
    assert mask_rejects(mask, (0, 2)).tolist() == [False, True, False, True, True]


KINDS = ["u1", "u2", "u4", "u8", "i1", "i2", "i4", "i8", ">i2", ">i4", ">i8"]


@pytest.mark.parametrize("kind", KINDS)
def test_every_bit_works_for_every_integer_mask(kind: Any) -> None:
    width = np.dtype(kind).itemsize * 8
    for bit in range(width):
        mask = np.array([0, 1 << bit], np.uint64).astype(kind)
        assert mask_rejects(mask, (bit,)).tolist() == [False, True]
        assert mask_rejects(mask, (bit, bit)).tolist() == [False, True]
        assert mask_rejects(mask, ((bit + 1) % width,)).tolist() == [False, False] or width == 1


def test_bits_of_floats_are_those_of_their_whole_part() -> None:
    mask = np.array([0.0, np.nan, 5.0, 2.0**62, 2.0**63, np.inf])
    assert mask_rejects(mask, (0,))[:5].tolist() == [False, False, True, False, False]
    assert mask_rejects(mask, (62,))[:5].tolist() == [False, False, False, True, False]
    assert mask_rejects(mask, (63,))[:5].tolist() == [False, False, False, False, True]
