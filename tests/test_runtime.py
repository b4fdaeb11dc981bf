from __future__ import annotations

import os
import time
from collections import Counter, deque
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import ray as _typed_ray

from lenspipe import runtime
from lenspipe.contracts import Reason
from lenspipe.errors import InputError
from lenspipe.processes.slots import Machine
from lenspipe.runtime import Pool, PoolEvents, PoolOptions
from tests.toy_pools import make_pool, outcomes

ray: Any = _typed_ray  # its annotations leave out what its documentation names
pytestmark = pytest.mark.usefixtures("ray_cluster")


def test_every_item_comes_out_once() -> None:
    found = outcomes(lambda item: item * item, list(range(50)), depth=2)
    assert {o.node for o in found} == {ray.util.get_node_ip_address()}
    assert {o.item: o.value for o in found} == {k: k * k for k in range(50)}
    assert len(found) == 50


def test_an_item_that_raises_is_tried_again_and_then_told() -> None:
    def call(item: int) -> int:
        if item == 3:
            raise ValueError("three is not to be had")
        return item

    found = {o.item: o for o in outcomes(call, [1, 2, 3, 4], attempts=2)}
    assert found[3].reason is Reason.WORKER_ERROR
    assert found[3].attempt == 2
    assert found[3].detail == "ValueError: three is not to be had"
    assert [found[k].value for k in (1, 2, 4)] == [1, 2, 4]


def test_a_passing_fault_costs_a_retry_and_no_item(tmp_path: Path) -> None:
    def call(item: int) -> int:
        mark = tmp_path / str(item)
        if item == 2 and not mark.exists():
            mark.touch()
            os._exit(1)
        return item

    told: Counter[str] = Counter()
    events = PoolEvents(
        retried=lambda _detail, _items: told.update(["retried"]),
        restarted=lambda: told.update(["restarted"]),
    )
    with make_pool(call, PoolOptions(workers=1), events=events) as pool:
        found = list(pool.run(deque([0, 1, 2, 3])))
    assert sorted(o.item for o in found if o.value == o.item) == [0, 1, 2, 3]
    assert (told["restarted"], told["retried"]) == (1, 1)


def test_the_caller_may_add_work_meanwhile() -> None:
    queue = deque([8])
    with make_pool(lambda item: item, PoolOptions(workers=2)) as pool:
        seen = []
        for outcome in pool.run(queue):
            seen.append(outcome.item)
            if outcome.item > 1:
                queue.extend([outcome.item // 2])
    assert seen == [8, 4, 2, 1]


def test_all_that_ended_while_the_caller_was_busy_is_taken_in_one_round() -> None:
    """Rounds cost what grows with the workers; with thousands of them they must be few."""
    rounds: list[int] = []
    events = PoolEvents(in_flight=rounds.append)
    options = PoolOptions(workers=2, depth=8)
    with make_pool(lambda item: item, options, events=events) as pool:
        seen = []
        for outcome in pool.run(deque(range(64))):
            seen.append(outcome.item)
            time.sleep(0.05)
    assert sorted(seen) == list(range(64))
    assert len(rounds) <= 16


def test_an_item_that_raises_beside_others_costs_no_process() -> None:
    def call(item: int) -> int:
        if item == 1:
            raise ValueError("one is not to be had")
        return item

    restarted: list[bool] = []
    events = PoolEvents(restarted=lambda: restarted.append(True))
    with make_pool(call, PoolOptions(workers=1), events=events) as pool:
        found = {o.item: o for o in pool.run(deque(range(6)))}
    assert (found[1].reason, found[1].attempt) == (Reason.WORKER_ERROR, 3)
    assert [found[k].value for k in (0, 2, 3, 4, 5)] == [0, 2, 3, 4, 5]
    assert restarted == []


def test_items_that_all_raise_cost_few_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    def call(item: int) -> int:
        raise ValueError("nothing is to be had")

    monkeypatch.setattr(runtime, "_RENEWED_IN_VAIN", 1)
    restarted: list[bool] = []
    events = PoolEvents(restarted=lambda: restarted.append(True))
    with make_pool(call, PoolOptions(workers=1, attempts=2), events=events) as pool:
        found = list(pool.run(deque(range(6))))
    assert [o.attempt for o in found] == [2] * 6
    assert restarted == [True]


def test_what_a_feed_reads_is_handed_over() -> None:
    with make_pool(
        lambda item, fed: (item, fed), PoolOptions(workers=1), feed=lambda item: item * 10
    ) as pool:
        found = sorted(o.value for o in pool.run(deque([1, 2, 3])) if o.value)
    assert found == [(1, 10), (2, 20), (3, 30)]


def test_a_worker_that_cannot_start_says_why() -> None:
    def refuse() -> Callable[..., Any]:
        raise InputError("ensemble", "a file", "none")

    with pytest.raises(InputError, match="ensemble: expected a file, found none"):
        Pool(refuse, PoolOptions(workers=1))


def test_workers_that_find_no_slot_hold_up_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    """A cluster that was to grow and does not: those that are there do the work."""
    monkeypatch.setattr(runtime, "_START_TIMEOUT_S", 20.0)
    with make_pool(lambda item: item, PoolOptions(workers=4)) as pool:
        assert sorted(o.value for o in pool.run(deque(range(20))) if o.value is not None) == [
            *range(20)
        ]


def test_the_window_is_bounded() -> None:
    counts: list[int] = []
    with make_pool(
        lambda item: item,
        PoolOptions(workers=2, depth=2),
        events=PoolEvents(in_flight=counts.append),
    ) as pool:
        assert len(list(pool.run(deque(range(40))))) == 40
    assert max(counts) <= 4


def test_the_session_has_two_cpus(ray_cluster: Machine) -> None:
    assert ray_cluster.cpus == 2
