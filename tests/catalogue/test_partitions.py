from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jaxtyping import Int64

from lenspipe.catalogue.partitions import (
    MAX_ORDER,
    SKY,
    Histogram,
    Partition,
    align,
    plan_partitions,
)

# Rows all over the sky, and rows that crowd into very few pixels.
INDICES = st.lists(
    st.integers(0, SKY - 1) | st.integers(7 << 40, (7 << 40) + 300) | st.just(5 << 30),
    min_size=1,
    max_size=120,
)


def counting(indices: Int64[np.ndarray, " n"]) -> Histogram:
    def histogram(
        order: int, lowest: int, parents: Int64[np.ndarray, " k"] | None
    ) -> tuple[Int64[np.ndarray, " n"], Int64[np.ndarray, " n"]]:
        kept = indices
        if parents is not None:
            kept = indices[np.isin(indices >> 2 * (MAX_ORDER - lowest + 1), parents)]
        return np.unique(kept >> 2 * (MAX_ORDER - order), return_counts=True)

    return histogram


@given(INDICES, st.integers(1, 30))
@settings(max_examples=60, deadline=None)
def test_every_row_is_in_one_partition_and_none_is_too_large(values: list[int], limit: int) -> None:
    indices = np.sort(np.array(values, np.int64))
    partitions = plan_partitions(counting(indices), limit)
    held = np.zeros(len(indices), int)
    for partition in partitions:
        inside = (indices >= partition.first) & (indices < partition.stop)
        held += inside
        assert np.count_nonzero(inside) == partition.rows > 0
        assert partition.rows <= limit or partition.order == MAX_ORDER
    assert np.all(held == 1)
    assert [p.first for p in partitions] == sorted(p.first for p in partitions)


@given(INDICES, st.integers(1, 30))
@settings(max_examples=30, deadline=None)
def test_no_partition_could_have_been_larger(values: list[int], limit: int) -> None:
    indices = np.array(values, np.int64)
    for partition in plan_partitions(counting(indices), limit):
        if partition.order:
            parents = indices >> 2 * (MAX_ORDER - partition.order + 1)
            assert np.count_nonzero(parents == partition.pixel >> 2) > limit


def test_few_rows_are_one_partition_per_base_pixel() -> None:
    indices = np.array([3, 4, 5 << 58], np.int64)
    assert plan_partitions(counting(indices), 10) == [Partition(0, 0, 2), Partition(0, 5, 1)]


def test_rows_that_share_the_smallest_pixel_stay_together() -> None:
    indices = np.full(7, 123456789, np.int64)
    assert plan_partitions(counting(indices), 3) == [Partition(MAX_ORDER, 123456789, 7)]


def test_align_returns_the_pixels_that_must_be_counted_deeper() -> None:
    pixels, rows = np.array([0, 1, 17], np.int64), np.array([50, 2, 3], np.int64)
    partitions, overfull = align(pixels, rows, order=2, lowest=0, limit=10)
    assert overfull.tolist() == [0]
    assert partitions == [Partition(0, 1, 3), Partition(2, 1, 2)]


@pytest.mark.parametrize("order", [0, 8, MAX_ORDER])
def test_a_partition_spans_its_pixel(order: int) -> None:
    partition = Partition(order, 11, 1)
    assert partition.stop - partition.first == 1 << 2 * (MAX_ORDER - order)
