from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lenspipe.errors import CorruptRunError
from lenspipe.intervals import Intervals, divided, halves, pending, shard_bounds


@given(st.lists(st.integers(1, 50), max_size=30), st.integers(1, 40))
def test_shards_cover_all_rows_and_no_small_group_twice(groups: list[int], limit: int) -> None:
    bounds = shard_bounds(np.array(groups, np.int64), limit).tolist()
    sizes = np.diff(bounds)
    assert bounds[0] == 0
    assert bounds[-1] == sum(groups)
    assert all(0 < size <= limit for size in sizes)
    ends = np.cumsum([0, *groups])
    for start, stop in itertools.pairwise(ends):
        inside = [bound for bound in bounds if start < bound < stop]
        assert not inside or stop - start > limit


@given(st.lists(st.integers(1, 9), min_size=1, max_size=20), st.data())
def test_pending_is_what_is_planned_less_what_is_done(
    sizes: list[int], data: st.DataObject
) -> None:
    bounds = np.cumsum([0, *sizes]).tolist()
    planned = list(itertools.pairwise(bounds))
    cuts = sorted(data.draw(st.sets(st.integers(0, bounds[-1]), max_size=12)))
    done = [pair for pair in itertools.pairwise(cuts) if data.draw(st.booleans())]
    left = pending(planned, Intervals(done))
    rows = [row for start, stop in left for row in range(start, stop)]
    covered = {row for start, stop in done for row in range(start, stop)}
    assert rows == [row for row in range(bounds[-1]) if row not in covered]


def test_commits_that_overlap_are_refused() -> None:
    with pytest.raises(CorruptRunError, match="rows 5-12"):
        Intervals([(0, 8), (5, 12)]).refuse_overlaps()


def test_overlaps_are_told_with_what_they_overlap_and_hide_no_gap() -> None:
    done = Intervals([(0, 8), (2, 4), (7, 9), (9, 10), (12, 14), (12, 14)])
    assert list(done.overlaps()) == [((0, 8), (2, 4)), ((0, 8), (7, 9)), ((12, 14), (12, 14))]
    assert list(Intervals().overlaps()) == []
    assert pending([(0, 20)], done) == [(10, 12), (14, 20)]


def test_halves_are_the_interval() -> None:
    assert halves((3, 8)) == [(3, 5), (5, 8)]


@given(st.integers(0, 50), st.integers(1, 200), st.integers(1, 60))
def test_a_divided_interval_is_whole_and_its_pieces_alike(start: int, rows: int, most: int) -> None:
    pieces = divided((start, start + rows), most)
    sizes = [last - first for first, last in pieces]
    assert [row for piece in pieces for row in range(*piece)] == [*range(start, start + rows)]
    assert len(pieces) == -(-rows // most)
    assert max(sizes) <= most
    assert max(sizes) - min(sizes) <= 1
