from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from lenspipe.cutouts.geometry import (
    SkyBuckets,
    Window,
    crop_origin,
    cut_stamps,
    group_rows,
    interior_distance,
    overlap_weights,
    resample,
    separation_deg,
    stamp_origin,
    window,
)


@pytest.mark.parametrize(
    ("position", "side", "origin"),
    [(10.0, 5, 8), (10.4, 5, 8), (10.5, 5, 9), (9.6, 5, 8), (10.0, 4, 8), (-0.4, 4, -2)],
)
def test_the_source_falls_on_index_half_of_the_side(
    position: float, side: int, origin: int
) -> None:
    assert stamp_origin(np.array([position]), side).tolist() == [origin]


def test_a_crop_keeps_the_pixel_of_the_source() -> None:
    assert crop_origin(120, 70) == 25
    for have in range(10, 15):
        for want in range(1, 11):
            stamp = np.arange(have)
            assert stamp[crop_origin(have, want) :][want // 2] == have // 2


@pytest.mark.parametrize("size", [1, 5, 16, 47, 48])
@pytest.mark.parametrize("native", [0.05, 0.186, 0.2, 0.263, 0.6])
def test_a_window_holds_every_model_pixel_and_no_spare_ring(size: int, native: float) -> None:
    win = window(size, 0.25, native)
    weights = overlap_weights(win)
    np.testing.assert_allclose(weights.sum(axis=1), win.ratio, rtol=1e-9)
    if win.side > 1:
        assert weights[:, 0].any() or weights[:, -1].any()


def test_the_source_pixels_of_both_grids_share_their_centre() -> None:
    for size in (8, 9):
        win = window(size, 0.25, 0.2)
        centre = overlap_weights(win)[size // 2]
        middle = win.side // 2
        assert centre[middle] == 1.0
        np.testing.assert_allclose(centre[middle - 1], centre[middle + 1])


def test_scales_within_a_percent_are_not_resampled() -> None:
    assert window(48, 0.25, 0.2476) == Window(48, 48)
    assert window(48, 0.25, 0.247).resampled


@settings(max_examples=30, deadline=None)
@given(st.floats(0.05, 1.0), st.integers(3, 20), st.integers(0, 2**31))
def test_flux_inside_the_window_is_conserved(native: float, size: int, seed: int) -> None:
    win = window(size, 0.25, native)
    stamps = np.random.default_rng(seed).normal(size=(2, win.side, win.side)).astype(np.float32)
    weights = overlap_weights(win).sum(axis=0)  # part of each native row that lies inside
    if not win.resampled:
        return
    inside = np.einsum("nyx,y,x->n", stamps.astype(np.float64), weights, weights)
    total = np.abs(stamps).sum()
    np.testing.assert_allclose(resample(stamps, win).sum(axis=(1, 2)), inside, atol=1e-5 * total)


def test_a_uniform_sky_stays_uniform_around_bad_pixels() -> None:
    win = window(9, 0.25, 0.186)
    stamps = np.full((2, win.side, win.side), 3.0, np.float32)
    stamps[1, 4, 4] = np.nan
    out = resample(stamps, win)
    np.testing.assert_allclose(out, 3.0 * win.ratio**2, rtol=1e-5)
    stamps[1, :5, :5] = np.nan
    out = resample(stamps, win)
    assert np.isnan(out[1]).any()
    np.testing.assert_allclose(out[np.isfinite(out)], 3.0 * win.ratio**2, rtol=1e-5)


def test_interior_distance_is_to_the_nearest_edge_of_the_pixels() -> None:
    x, y = np.array([-0.5, 0.0, 4.5, 9.5, 10.0]), np.full(5, 9.5)
    np.testing.assert_allclose(interior_distance(x, y, (20, 10)), [0, 0.5, 5, 0, -0.5])


positions = st.tuples(st.floats(0, 360), st.floats(-90, 90))


@settings(max_examples=60, deadline=None)
@given(
    st.lists(positions, max_size=40),
    positions,
    st.floats(0.001, 20.0),
    st.floats(0.01, 30.0),
)
@example([(359.99, 0.0), (0.01, 0.0)], (0.0, 0.0), 0.1, 0.1)
@example([(359.99, 0.0), (0.01, 0.0)], (359.995, 0.0), 0.1, 0.03)
@example([(180.0, 89.9), (10.0, 89.95)], (0.0, 89.9), 0.3, 0.2)
@example([(180.0, -90.0)], (0.0, -89.9), 0.3, 0.2)
def test_no_source_near_a_point_is_overlooked(
    sources: list[tuple[float, float]], centre: tuple[float, float], radius: float, cell: float
) -> None:
    ra, dec = np.array([s[0] for s in sources]), np.array([s[1] for s in sources])
    found = SkyBuckets(ra, dec, cell).near(*centre, radius)
    assert len(set(found.tolist())) == len(found)
    near = np.flatnonzero(separation_deg(ra, dec, *centre) <= radius * (1 - 1e-9))
    assert set(near.tolist()) <= set(found.tolist())


def test_few_sources_are_looked_at_and_none_without_a_position() -> None:
    rng = np.random.default_rng(0)
    ra = rng.uniform(0, 360, 20_000)
    dec = np.degrees(np.arcsin(rng.uniform(-1, 1, 20_000)))
    ra[:5], dec[5:10] = np.nan, 95.0
    found = SkyBuckets(ra, dec, 1.0).near(100.0, 30.0, 1.0)
    assert 0 < len(found) < 60
    whole = SkyBuckets(ra, dec, 1.0).near(0.0, 90.0, 180.0)
    assert sorted(whole.tolist()) == list(range(10, 20_000))


@given(st.lists(st.integers(-1, 4), max_size=30))
def test_groups_hold_each_row_once(keys: list[int]) -> None:
    groups = dict(group_rows(np.array(keys, np.int64)))
    assert list(groups) == sorted(groups)
    rows = [row for members in groups.values() for row in members.tolist()]
    assert sorted(rows) == [i for i, key in enumerate(keys) if key >= 0]
    assert all(keys[row] == key for key, members in groups.items() for row in members.tolist())


@settings(max_examples=60, deadline=None)
@given(st.integers(-9, 12), st.integers(-9, 15), st.integers(1, 8))
def test_a_stamp_equals_the_same_window_of_a_padded_image(x: int, y: int, side: int) -> None:
    image = np.arange(1.0, 1 + 13 * 10).reshape(13, 10)
    padded = np.pad(image, 20)
    out = np.zeros((2, side, side), np.float32)
    one: Any = np.array([1])
    cut_stamps(image, np.array([x]), np.array([y]), out, one)
    np.testing.assert_array_equal(out[1], padded[20 + y : 20 + y + side, 20 + x : 20 + x + side])
    assert not out[0].any()


def test_separation_is_exact_for_small_angles() -> None:
    found = separation_deg(np.array([10.0]), np.array([60.0 + 1e-9]), 10.0, 60.0)
    assert math.isclose(found[0], 1e-9, rel_tol=1e-5)
