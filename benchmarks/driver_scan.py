"""What one completed shard costs the driver for every shard that is with a worker at the time.

    python -m benchmarks.driver_scan

`benchmarks.soak` has two workers; with thousands the pool looks through more of them each time, and
Ray through more references. Prints one JSON object, processor time in microseconds per shard that
is with a worker: of `ray.wait`, and of the pool's own pass over its workers.
"""

from __future__ import annotations

import json
import time
from collections import deque
from collections.abc import Callable
from typing import Any

import numpy as np
import ray as _typed_ray

from lenspipe.runtime import Pool, PoolEvents, PoolOptions, _Held, _Worker, connect

ray: Any = _typed_ray
HELD = (512, 2048, 8192)
DEPTH = 2
_TURNS = 50


class _Resting:
    def rest(self, seconds: float) -> None:
        time.sleep(seconds)


def wait_us() -> float:
    """Of `ray.wait` for the first of so many, as the pool calls it."""
    with connect(cpus=1):
        actor: Any = ray.remote(num_cpus=0)(_Resting)
        busy, idle = actor.remote(), actor.remote()
        pending = [busy.rest.remote(3600.0) for _ in range(max(HELD))]
        ray.get(idle.rest.remote(0.0))

        def wait(held: int) -> None:
            ready = idle.rest.remote(0.0)
            ray.wait([*pending[:held], ready], num_returns=1)

        slope = _slope(wait)
        ray.kill(busy)
        return slope


def pass_us() -> float:
    """Of the pool's own lines for one completion: what is held is listed, the workers are filled,
    checked for being late, and asked for the one whose shard it was."""

    def pool_of(held: int) -> Pool[int, int]:
        pool: Pool[int, int] = object.__new__(Pool)
        workers = [_Worker[int](handle=object(), starting=None) for _ in range(held // DEPTH)]
        for number, worker in enumerate(workers):
            references = [(number, place) for place in range(DEPTH)]
            worker.holds = {reference: _Held(0, None, 0.0) for reference in references}
        return _prepared(pool, workers)

    pools = {held: pool_of(held) for held in HELD}

    def complete(held: int) -> None:
        pool = pools[held]
        queue = deque([0])
        pool._fill(queue)
        found = [reference for worker in pool._workers for reference in worker.holds]
        pool._kill_overdue()
        middle = found[len(found) // 2]
        for worker in pool._workers:
            if middle == worker.starting or middle in worker.holds:
                break

    return _slope(complete)


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
    print(json.dumps({"wait_us_per_shard_held": wait_us(), "pool_us_per_shard_held": pass_us()}))


if __name__ == "__main__":
    main()
