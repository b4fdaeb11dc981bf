from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lenspipe.contracts import Reason
from lenspipe.intervals import Interval, Intervals
from lenspipe.runtime import Outcome
from lenspipe.stages.scoring import PlanRows
from lenspipe.stages.stage import _settle, remaining


@dataclass(frozen=True)
class Groups:
    """Work that splits into pieces of given sizes, as a part of the catalogue does."""

    start: int
    sizes: tuple[int, ...]

    @property
    def interval(self) -> Interval:
        return (self.start, self.start + sum(self.sizes))

    def split(self) -> Sequence[Groups]:
        starts = [self.start + sum(self.sizes[:k]) for k in range(len(self.sizes))]
        return [Groups(at, (size,)) for at, size in zip(starts, self.sizes, strict=True)]


@given(st.lists(st.lists(st.integers(1, 5), min_size=1, max_size=4), max_size=6), st.data())
def test_what_is_committed_is_not_done_again_and_the_rest_is(
    parts: list[list[int]], data: st.DataObject
) -> None:
    planned, start = [], 0
    for sizes in parts:
        planned.append(Groups(start, tuple(sizes)))
        start += sum(sizes)
    done: list[Interval] = []
    for work in planned:
        whole = data.draw(st.sampled_from(["whole", "pieces", "nothing"]))
        if whole == "whole":
            done.append(work.interval)
        elif whole == "pieces":
            done += [piece.interval for piece in work.split() if data.draw(st.booleans())]
    left = [work.interval for work in remaining(planned, Intervals(done))]
    rows = [row for low, high in sorted([*left, *done]) for row in range(low, high)]
    assert rows == list(range(start))


@given(st.integers(1, 300), st.data())
def test_a_shard_that_was_halved_goes_on_where_it_was(size: int, data: st.DataObject) -> None:
    pieces = [PlanRows(0, size)]
    for _ in range(data.draw(st.integers(0, 6))):
        chosen = data.draw(st.sampled_from(pieces))
        pieces = [p for p in pieces if p != chosen] + list(chosen.split())
    done = [piece.interval for piece in pieces if data.draw(st.booleans())]
    left = [work.interval for work in remaining([PlanRows(0, size)], Intervals(done))]
    ordered = sorted([*left, *done])
    assert ordered[0][0] == 0
    assert ordered[-1][1] == size
    assert all(first[1] == second[0] for first, second in pairwise(ordered))


@pytest.mark.parametrize("reason", [Reason.TIMED_OUT, Reason.WORKER_ERROR])
def test_parts_of_what_timed_out_wait_behind_all_others_for_one_attempt(reason: Reason) -> None:
    late: list[PlanRows] = []

    def split_off_late(pieces: Iterable[PlanRows]) -> None:
        late.extend(pieces)

    pool: Any = SimpleNamespace(split_off_late=split_off_late)
    ledger: Any = SimpleNamespace(events=SimpleNamespace(split=lambda *_: None))
    spec: Any = SimpleNamespace(stage="score")
    queue = deque([PlanRows(8, 16)])
    _settle(ledger, spec, Outcome(PlanRows(0, 8), 3, reason=reason), queue, pool)
    halves = [PlanRows(0, 4), PlanRows(4, 8)]
    assert list(queue) == [PlanRows(8, 16), *halves]
    assert late == (halves if reason is Reason.TIMED_OUT else [])
