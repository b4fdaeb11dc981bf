"""Work that never ends: whoever does it is killed after its time, and nothing else is lost."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections import Counter, deque
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lenspipe.contracts import Reason
from lenspipe.errors import StoppedError
from lenspipe.processes import time_limit
from lenspipe.runtime import Outcome, Pool, PoolEvents, PoolOptions
from tests.toy_pools import Factory

FEED_S = 12.0  # starting the process of a task counts too
pytestmark = [pytest.mark.chaos, pytest.mark.usefixtures("ray_cluster"), pytest.mark.timeout(600)]


def outcomes(
    call: Callable[..., Any],
    items: range,
    options: PoolOptions,
    feed: Callable[[int], Any] | None = None,
) -> tuple[dict[int, Outcome[int, Any]], Counter[str]]:
    told: Counter[str] = Counter()
    events = PoolEvents(
        retried=lambda *_: told.update(["retried"]), restarted=lambda: told.update(["restarted"])
    )
    with Pool[int, Any](Factory(call), options, events, feed) as pool:
        found = list(pool.run(deque(items)))
    assert sorted(o.item for o in found) == list(items)
    return {o.item: o for o in found}, told


def stop() -> None:
    """The process stands still, as under SIGSTOP.

    For good: the kernel wakes what is stopped in a process group that becomes an orphan (setpgid
    (2)), which another worker's end may bring about.
    """
    while True:
        os.kill(os.getpid(), signal.SIGSTOP)


def stop_once(mark: Path) -> None:
    """Stop the first time that a process comes here."""
    if not mark.exists():
        mark.touch()
        stop()


def test_a_stopped_actor_costs_a_retry(tmp_path: Path) -> None:
    def call(item: int) -> int:
        if item == 3:
            stop_once(tmp_path / "mark")
        return item

    found, told = outcomes(call, range(8), PoolOptions(workers=2, timeout_s=3.0))
    assert [found[k].value for k in range(8)] == list(range(8))
    assert told["restarted"] == 1


def test_an_actor_that_stops_every_time_is_told_as_timed_out() -> None:
    def call(item: int) -> int:
        if item == 2:
            stop()
        return item

    options = PoolOptions(workers=2, attempts=2, timeout_s=3.0)
    found, _ = outcomes(call, range(6), options)
    assert (found[2].reason, found[2].attempt) == (Reason.TIMED_OUT, 2)
    assert [found[k].value for k in (0, 1, 3, 4, 5)] == [0, 1, 3, 4, 5]


def test_a_stopped_feeding_task_costs_a_retry_and_gives_its_slot_back(tmp_path: Path) -> None:
    def feed(item: int) -> int:
        if item == 1:
            stop_once(tmp_path / "mark")
        return item * 10

    options = PoolOptions(workers=1, depth=2, timeout_s=FEED_S)
    found, told = outcomes(lambda item, fed: (item, fed), range(5), options, feed)
    assert [found[k].value for k in range(5)] == [(k, 10 * k) for k in range(5)]
    assert told["retried"] >= 1
    assert told["restarted"] == 0  # the actor has done nothing wrong


def test_a_reader_that_never_returns_is_told_as_timed_out() -> None:
    def feed(item: int) -> int:
        if item == 1:
            time.sleep(3600)
        return item * 10

    options = PoolOptions(workers=1, depth=2, attempts=1, timeout_s=FEED_S)
    found, _ = outcomes(lambda item, fed: (item, fed), range(4), options, feed)
    assert (found[1].reason, found[1].attempt) == (Reason.TIMED_OUT, 1)
    assert [found[k].value for k in (0, 2, 3)] == [(k, 10 * k) for k in (0, 2, 3)]


def test_an_item_behind_another_is_not_late_for_its_sake() -> None:
    """Two are with the actor and one is done at a time: the second's clock begins with its turn."""
    turn = threading.Lock

    class InTurn:
        def __init__(self) -> None:
            self.lock = turn()

        def __call__(self, item: int) -> int:
            with self.lock:
                time.sleep(1.2)
            return item

    options = PoolOptions(workers=1, depth=3, attempts=1, timeout_s=3.0)
    with Pool[int, Any](InTurn, options) as pool:
        found = list(pool.run(deque(range(5))))
    assert [o.value for o in found] == [o.item for o in found]


def test_where_everything_hangs_the_run_stops(monkeypatch: pytest.MonkeyPatch) -> None:
    def call(item: int) -> int:
        if item > 1:
            time.sleep(3600)
        return item

    monkeypatch.setattr(time_limit, "HUNG_IN_A_ROW", 3)
    found: list[int] = []
    options = PoolOptions(workers=2, attempts=1, timeout_s=2.0)
    with (
        Pool[int, Any](Factory(call), options) as pool,
        pytest.raises(StoppedError, match=r"3 shards .* in a row .* storage hangs .* resumes"),
    ):
        found.extend(outcome.item for outcome in pool.run(deque(range(50))))
    assert sorted(found) == [0, 1, 2, 3]  # the third that hung ended it


def test_a_straggler_inside_its_limit_is_done_once_and_nothing_is_killed(tmp_path: Path) -> None:
    """One item takes a hundred times as long as the others, which go on beside it."""

    def call(item: int) -> int:
        with (tmp_path / str(item)).open("a") as mark:
            mark.write("x")
        time.sleep(5.0 if item == 3 else 0.05)
        return item

    options = PoolOptions(workers=2, depth=2, timeout_s=30.0)
    told: Counter[str] = Counter()
    events = PoolEvents(
        retried=lambda *_: told.update(["retried"]), restarted=lambda: told.update(["restarted"])
    )
    with Pool[int, Any](Factory(call), options, events) as pool:
        found = list(pool.run(deque(range(40))))
    assert sorted(o.item for o in found) == list(range(40))
    assert found[-1].item == 3  # nobody else waited for it
    assert all(o.value == o.item and o.attempt == 1 for o in found)
    assert {path.read_text() for path in tmp_path.iterdir()} == {"x"}
    assert told == Counter()
