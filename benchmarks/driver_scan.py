"""What a round of the driver costs it for every shard that is with a worker at the time.

    python -m benchmarks.driver_scan

`benchmarks.soak` has two workers; with thousands the pool looks through more of them in each round,
and Ray through more references. A round takes all shards that have ended. Prints one JSON object,
processor time in microseconds per shard that is with a worker: of `ray.wait`, and of the pool's own
passes over its workers; and what `ray.wait` costs for each shard more that it finds ready.
"""

from __future__ import annotations

import json
import time
from collections import deque
from collections.abc import Callable
from typing import Any

import numpy as np
import ray as _typed_ray

from lenspipe.runtime import Pool, PoolEvents, PoolOptions, _Held, _wait, _Worker, connect

ray: Any = _typed_ray
HELD = (512, 2048, 8192)
DEPTH = 2
_READY = 256
_TURNS = 50


class _Resting:
    def rest(self, seconds: float) -> None:
        time.sleep(seconds)


def wait_us() -> tuple[float, float]:
    """Of the pool's wait for the first of so many; and for each one more that is ready."""
    with connect(cpus=1):
        actor: Any = ray.remote(num_cpus=0)(_Resting)
        busy, idle = actor.remote(), actor.remote()
        pending = [busy.rest.remote(3600.0) for _ in range(max(HELD))]
        ray.get(idle.rest.remote(0.0))

        ready = [idle.rest.remote(0.0) for _ in range(_READY)]
        ray.get(ready)

        def wait_for_one(held: int) -> None:
            _wait([*pending[:held], idle.rest.remote(0.0)])

        def wait_with(ended: list[Any]) -> float:
            references = [*pending[: HELD[-1] - len(ended)], *ended]
            began = time.process_time()
            for _ in range(_TURNS):
                found = _wait(references)
            assert len(found) == len(ended)
            return (time.process_time() - began) / _TURNS

        slope = _slope(wait_for_one)
        more = (wait_with(ready) - wait_with(ready[:1])) / (_READY - 1) * 1e6
        ray.kill(busy)
        return slope, more


def pass_us() -> float:
    """Of the pool's own lines in one round: workers are filled, listed, checked for being late."""

    def pool_of(held: int) -> Pool[int, int]:
        pool: Pool[int, int] = object.__new__(Pool)
        workers = [_Worker[int](handle=object(), starting=None) for _ in range(held // DEPTH)]
        for number, worker in enumerate(workers):
            references = [(number, place) for place in range(DEPTH)]
            worker.holds = {reference: _Held(0, None, 0.0) for reference in references}
        return _prepared(pool, workers)

    pools = {held: pool_of(held) for held in HELD}

    def one_round(held: int) -> None:
        pool = pools[held]
        pool._fill(deque([0]))
        assert len(pool._holders()) == held
        pool._kill_overdue()

    return _slope(one_round)


def _prepared(pool: Pool[int, int], workers: list[_Worker[int]]) -> Pool[int, int]:
    """A pool with these workers and no Ray."""
    from lenspipe.processes.time_limit import TimeLimit

    pool._options = PoolOptions(len(workers), depth=DEPTH)
    pool._events, pool._feed = PoolEvents(), None
    pool._suspects, pool._resting, pool._attempts = deque(), [], {}
    pool._time = TimeLimit(1e9)
    pool._workers = workers
    return pool


def _slope(call: Callable[[int], None]) -> float:
    """Processor time per shard held, in microseconds, by a line through the sizes."""
    times = []
    for held in HELD:
        call(held)
        began = time.process_time()
        for _ in range(_TURNS):
            call(held)
        times.append((time.process_time() - began) / _TURNS)
    return float(np.polyfit(HELD, times, 1)[0] * 1e6)


def main() -> None:
    """Print the measurement as one JSON object."""
    wait, more = wait_us()
    found = {"wait": wait, "pool": pass_us(), "wait_per_ready": more}
    print(json.dumps({f"{name}_us": value for name, value in found.items()}))


if __name__ == "__main__":
    main()
