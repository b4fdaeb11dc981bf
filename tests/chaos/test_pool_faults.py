"""Items and workers of a pool that die, hang or meet storage that is away."""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from ray.exceptions import OutOfMemoryError

from lenspipe import runtime
from lenspipe.contracts import Reason
from lenspipe.errors import StoppedError
from lenspipe.runtime import Outcome, Pool, PoolEvents, PoolOptions
from tests.toy_pools import make_pool, outcomes

pytestmark = [pytest.mark.chaos, pytest.mark.usefixtures("ray_cluster")]


def test_the_item_that_kills_is_told_from_those_beside_it() -> None:
    def call(item: int) -> int:
        if item == 5:
            os._exit(9)
        time.sleep(0.05)
        return item

    found = {o.item: o for o in outcomes(call, list(range(12)), depth=3, attempts=2)}
    assert found[5].reason is Reason.WORKER_DIED
    assert sorted(o.item for o in found.values() if o.value is not None) == [
        k for k in range(12) if k != 5
    ]


def test_an_item_that_never_ends_is_killed_and_told() -> None:
    def call(item: int) -> int:
        if item == 1:
            time.sleep(60)
        return item

    found = {o.item: o for o in outcomes(call, [0, 1, 2], attempts=1, timeout_s=1.5)}
    assert found[1].reason is Reason.TIMED_OUT
    assert (found[0].value, found[2].value) == (0, 2)


def test_a_part_of_what_timed_out_is_late_once() -> None:
    def call(item: int) -> int:
        if item in (1, 10):
            time.sleep(60)
        return item

    queue = deque([1])
    found: dict[int, Outcome[int, Any]] = {}
    with make_pool(call, PoolOptions(workers=1, attempts=2, timeout_s=1.5)) as pool:
        for outcome in pool.run(queue):
            found[outcome.item] = outcome
            if outcome.item == 1:
                queue.extend([10, 11])
                pool.split_off_late([10, 11])
    assert {k: (o.attempt, o.reason) for k, o in found.items()} == {
        1: (2, Reason.TIMED_OUT),
        10: (1, Reason.TIMED_OUT),
        11: (1, None),
    }


@pytest.mark.parametrize(("attempts", "depth"), [(3, 1), (2, 2), (1, 1)])
def test_a_process_that_broke_for_good_is_replaced_and_no_item_blamed(
    tmp_path: Path, attempts: int, depth: int
) -> None:
    """As after an error of a CUDA device: every later call of that process raises. Only the item
    that broke it may be told, and that only where it has no second attempt."""
    mark = tmp_path / "mark"
    broken: list[int] = []

    def call(item: int) -> int:
        if item == 4 and not mark.exists():
            mark.touch()
            broken.append(item)
        if broken:
            raise RuntimeError("CUDA failure 700: an illegal memory access was encountered")
        return item

    restarted: list[bool] = []
    events = PoolEvents(restarted=lambda: restarted.append(True))
    options = PoolOptions(workers=1, depth=depth, attempts=attempts)
    with make_pool(call, options, events=events) as pool:
        found = list(pool.run(deque(range(12))))
    wrong = [o.item for o in found if o.value != o.item]
    assert sorted(o.item for o in found) == list(range(12))
    assert wrong == ([4] if attempts == 1 else [])
    assert restarted == [True]


def test_an_outage_of_the_storage_is_waited_for(tmp_path: Path) -> None:
    def call(item: int) -> int:
        mark = tmp_path / "tries"
        tries = int(mark.read_text()) if mark.exists() else 0
        mark.write_text(str(tries + 1))
        if tries < 2:
            raise OSError(5, "the disk is away")
        return item

    with make_pool(call, PoolOptions(workers=1, attempts=1)) as pool:
        found = list(pool.run(deque([7])))
    assert [(o.value, o.attempt) for o in found] == [(7, 3)]


def test_storage_that_never_comes_back_stops_the_run_and_blames_no_item() -> None:
    def call(item: int) -> int:
        raise OSError(28, "no space left")

    with (
        make_pool(call, PoolOptions(workers=1, storage_attempts=2)) as pool,
        pytest.raises(StoppedError, match=r"storage failed 2 times.*no space left.*resumes"),
    ):
        list(pool.run(deque([1, 2])))


def _count(mark: Path) -> int:
    """How often this was asked before."""
    with mark.open("a") as file:
        before = file.tell()
        file.write(".")
    return before


def test_an_outage_while_a_worker_starts_is_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def build() -> Callable[..., Any]:
        if _count(tmp_path / "starts") < 2:
            raise OSError(5, "Input/output error", "/models/a.onnx")
        return lambda item: item

    rests: list[int] = []

    def rest_s(refusals: int) -> float:
        rests.append(refusals)
        return 0.1

    monkeypatch.setattr(runtime, "rest_s", rest_s)
    told: list[str] = []
    events = PoolEvents(retried=lambda detail, _: told.append(detail))
    with Pool[int, Any](build, PoolOptions(workers=1), events) as pool:
        assert [o.value for o in pool.run(deque([1, 2]))] == [1, 2]
    assert rests == [1, 2]
    assert told == ["OSError: [Errno 5] Input/output error: '/models/a.onnx'"] * 2


def test_storage_that_keeps_every_worker_from_starting_stops_the_run(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def build() -> Callable[..., Any]:
        raise OSError(116, "Stale file handle", "/models/a.onnx")

    monkeypatch.setattr(runtime, "rest_s", lambda _refusals: 0.1)
    with pytest.raises(StoppedError, match=r"Stale file handle.*resumes") as told:
        Pool[int, Any](build, PoolOptions(workers=2, storage_attempts=3))
    assert "storage failed 3 times: a worker could not start" in str(told.value)
    assert "died" not in str(told.value)


def test_a_worker_that_storage_keeps_from_starting_comes_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The other works meanwhile, beyond the attempts after which a run would stop."""

    def build() -> Callable[..., Any]:
        if 1 <= _count(tmp_path / "starts") < 5:
            raise OSError(5, "Input/output error", "/models/a.onnx")
        mine = tmp_path / f"works {os.getpid()}"
        mine.touch()

        def call(item: int) -> int:
            ended = time.monotonic() + 60
            while len(list(tmp_path.glob("works *"))) < 2 and time.monotonic() < ended:
                time.sleep(0.05)
            return os.getpid()

        return call

    monkeypatch.setattr(runtime, "rest_s", lambda _refusals: 0.1)
    with Pool[int, Any](build, PoolOptions(workers=2, storage_attempts=2)) as pool:
        found = list(pool.run(deque(range(20))))
    assert len(found) == 20
    assert len(list(tmp_path.glob("works *"))) == 2
    assert all(o.value for o in found)


def test_a_worker_that_dies_while_starting_is_started_again(tmp_path: Path) -> None:
    def build() -> Callable[..., Any]:
        mark = tmp_path / "started"
        if not mark.exists():
            mark.touch()
            os._exit(1)
        return lambda item: item

    with Pool[int, Any](build, PoolOptions(workers=1)) as pool:
        assert [o.value for o in pool.run(deque([1, 2]))] == [1, 2]


def test_workers_that_always_die_while_starting_stop_the_run() -> None:
    def build() -> Callable[..., Any]:
        os._exit(1)

    with pytest.raises(StoppedError, match="died 5 times while starting"):
        Pool[int, Any](build, PoolOptions(workers=1))


def test_an_actor_that_ran_out_of_memory_is_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ray tells of it by an error of its own, which is no `RayActorError`."""
    fetch = runtime.ray.get
    told: list[bool] = []
    fault: Any = OutOfMemoryError  # Ray left its constructor without types

    def once(reference: Any, **options: Any) -> Any:
        value = fetch(reference, **options)
        if value == 3 and not told:
            raise fault("killed for memory")
        return value

    events = PoolEvents(restarted=lambda: told.append(True))
    with make_pool(lambda item: item, PoolOptions(workers=1), events=events) as pool:
        monkeypatch.setattr(runtime.ray, "get", once)
        found = sorted(o.item for o in pool.run(deque([1, 2, 3, 4])) if o.value == o.item)
    assert (found, told) == ([1, 2, 3, 4], [True])
