from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lenspipe.cutouts.chunks.sparse import (
    Layout,
    Run,
    batches,
    merge_ranges,
    plan_runs,
    plan_strips,
    split_dense,
)

layouts = st.builds(
    lambda total, granule, many, size: Layout(total, granule, granule * many, size),
    st.integers(1, 300),
    st.integers(1, 8),
    st.integers(1, 10),
    st.floats(1.0, 1e5),
)
prices = st.floats(0.0, 1e6)


@st.composite
def requests(draw: st.DrawFn) -> tuple[Layout, np.ndarray]:
    layout = draw(layouts)
    wanted = draw(st.lists(st.integers(0, layout.total - 1), max_size=40))
    return layout, np.array(wanted, np.int64)


def _cost(runs: tuple[Run, ...], layout: Layout, request_bytes: float) -> float:
    """Price of a plan in bytes."""
    return sum(request_bytes + (run.stop - run.start) * layout.object_bytes for run in runs)


def _held(runs: tuple[Run, ...]) -> list[int]:
    return [number for run in runs for number in range(run.start, run.stop)]


@settings(max_examples=80, deadline=None)
@given(requests(), prices)
def test_runs_hold_all_that_is_wanted_once_and_cost_no_more_than_fixed_choices(
    request: tuple[Layout, np.ndarray], price: float
) -> None:
    layout, wanted = request
    runs = plan_runs(wanted, layout, price)
    held = _held(runs)
    assert len(set(held)) == len(held)
    assert set(wanted.tolist()) <= set(held)
    assert all(0 <= run.start < run.stop <= layout.total for run in runs)
    for run in runs:
        assert run.start // layout.group == (run.stop - 1) // layout.group
        assert run.start % layout.granule == 0

    def fixed(step: int) -> tuple[Run, ...]:
        parts = sorted({w // step * step for w in wanted.tolist()})
        return tuple(Run(p, min(p + step, layout.total)) for p in parts)

    for step in (layout.granule, layout.group):
        assert _cost(runs, layout, price) <= _cost(fixed(step), layout, price) * (1 + 1e-9)


@settings(max_examples=80, deadline=None)
@given(requests(), prices, prices)
def test_a_split_costs_no_more_than_all_whole_or_all_alone(
    request: tuple[Layout, np.ndarray], price: float, decode: float
) -> None:
    layout, wanted = request
    split = split_dense(wanted, layout, price, decode)
    dense = set(_held(split.dense))
    assert set(split.sparse.tolist()) == set(wanted.tolist()) - dense
    each = layout.granule * layout.object_bytes + decode

    def whole(group: int) -> float:
        stop = min((group + 1) * layout.group, layout.total)
        return price + -(-(stop - group * layout.group) // layout.granule) * each

    def alone(objects: set[int]) -> float:
        return len({o // layout.granule for o in objects}) * (price + each)

    groups = {w // layout.group for w in wanted.tolist()}
    cost = sum(whole(run.start // layout.group) for run in split.dense)
    cost += alone(set(split.sparse.tolist()))
    assert cost <= sum(map(whole, groups)) * (1 + 1e-9)
    assert cost <= alone(set(wanted.tolist())) * (1 + 1e-9)


def test_one_in_a_thousand_of_a_shard_is_read_alone_and_half_of_it_whole() -> None:
    shard = Layout(100_000, 1, 2000, 27_648)
    few, many = np.arange(0, 100_000, 1000), np.arange(0, 100_000, 2)
    assert split_dense(few, shard, 600e3, 200e3).dense == ()
    assert len(split_dense(many, shard, 600e3, 200e3).sparse) == 0


def test_a_layout_whose_group_splits_a_granule_is_refused() -> None:
    with pytest.raises(ValueError, match="multiple"):
        Layout(10, 4, 6, 1.0)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(0, 200), unique=True), st.integers(1, 9), st.integers(1, 50))
def test_batches_split_no_granule(objects: list[int], granule: int, most: int) -> None:
    wanted = np.array(sorted(objects), np.int64)
    parts = batches(wanted, granule, most)
    assert [o for part in parts for o in part.tolist()] == wanted.tolist()
    assert all(len(part) <= max(most, granule) for part in parts)
    owners = [set((part // granule).tolist()) for part in parts]
    assert sum(map(len, owners)) == len(set().union(*owners))


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(-20, 120), max_size=20), st.integers(1, 15), prices)
def test_strips_hold_every_stamp_whole(tops: list[int], side: int, price: float) -> None:
    starts = np.array(tops, np.int64)
    strips = plan_strips(starts, starts + side, 100, 1000.0, price)
    held = _held(strips)
    assert held == sorted(set(held))
    for top in tops:
        rows = [row for row in range(top, top + side) if 0 <= row < 100]
        assert not rows or any(s.start <= rows[0] and rows[-1] < s.stop for s in strips)
    for before, after in pairwise(strips):
        assert (after.start - before.stop) * 1000.0 > price


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 10_000), st.integers(1, 500)), max_size=30),
    st.floats(-1.0, 3000.0),
    st.floats(500.0, 1e5),
)
def test_merged_ranges_hold_each_range_and_cost_no_more_than_one_by_one(
    spans: list[tuple[int, int]], price: float, most: float
) -> None:
    starts = np.array([start for start, _ in spans], np.int64)
    stops = starts + np.array([length for _, length in spans], np.int64)
    merged, member = merge_ranges(starts, stops, price, most)
    for start, stop, which in zip(starts.tolist(), stops.tolist(), member.tolist(), strict=True):
        assert merged[which][0] <= start < stop <= merged[which][1]
    assert all(high - low <= max(most, 500) for low, high in merged)
    cost = sum(price + high - low for low, high in merged)
    assert cost <= sum(price + stop - start for start, stop in zip(starts, stops, strict=True))
