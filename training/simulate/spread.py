"""The runs of a set over processes of this machine, or over Ray's cores and nodes.

Each example depends on the recipe and its own number alone, so who makes it changes nothing.
"""

from __future__ import annotations

import multiprocessing
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from functools import partial

from lenspipe.errors import StoppedError
from training.simulate.dataset import Generator, SimulateRecipe, rows
from training.simulate.parts import Rows

# Runs that a Ray actor holds: the next waits with it while it works on one.
_DEPTH = 2

_worker: Generator | None = None


def _start_worker(recipe: SimulateRecipe) -> None:
    global _worker  # noqa: PLW0603 - a process pool's initialiser can hand on state in no other way
    _worker = Generator.of(recipe)


def _rows_in_worker(start: int) -> Rows:
    if _worker is None:
        raise RuntimeError("worker was not started with a recipe")
    return rows(_worker, start)


def here(generator: Generator, starts: Sequence[int]) -> Iterator[Rows]:
    """In this process, in order."""
    return (rows(generator, start) for start in starts)


def over_processes(recipe: SimulateRecipe, starts: Sequence[int], workers: int) -> Iterator[Rows]:
    """Over processes, as they are done."""
    with ProcessPoolExecutor(
        workers,
        # Neither threads of numerical libraries nor open files are carried into the workers.
        mp_context=multiprocessing.get_context("spawn"),
        initializer=_start_worker,
        initargs=(recipe,),
    ) as pool:
        for made in as_completed([pool.submit(_rows_in_worker, start) for start in starts]):
            yield made.result()


def _in_actor(recipe: SimulateRecipe) -> Callable[[int], Rows]:
    return partial(rows, Generator.of(recipe))


def over_ray(
    recipe: SimulateRecipe, starts: Sequence[int], workers: int, address: str
) -> Iterator[Rows]:
    """Over Ray actors of one core each, as they are done: on this machine where `address` is
    `local`, else on the cluster's cores, where every node must have the recipe's data.

    StoppedError: a run failed at every attempt; those that are done are kept by the caller.
    """
    from lenspipe.runtime import Pool, PoolOptions, connect

    local = address == "local"
    with connect(None if local else address, workers if local else None) as machine:
        actors = max(1, min(int(machine.cpus), len(starts)))
        options = PoolOptions(actors, depth=_DEPTH)
        pool: Pool[int, Rows] = Pool(partial(_in_actor, recipe), options)
        with pool:
            for outcome in pool.run(deque(starts)):
                if outcome.value is None:
                    raise StoppedError(f"examples from {outcome.item} on: {outcome.detail}")
                yield outcome.value
