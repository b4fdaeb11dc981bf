"""Ray: connect, and a bounded map over actors that survives the death of any of them.

The map knows nothing of lenses. An item that raises is tried again; an actor that dies is replaced,
and since several items were with it, each of them is tried again alone, so that the one that kills
is known from those that were only near.
"""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from typing import Any, Generic, TypeVar

import ray as _typed_ray
from ray.exceptions import GetTimeoutError, RayError, RayTaskError

from lenspipe.contracts import Reason
from lenspipe.errors import LenspipeError
from lenspipe.slots import Machine

ray: Any = _typed_ray  # its annotations leave out options that its documentation names
T = TypeVar("T", bound=Hashable)
R = TypeVar("R")
_POLL_S = 1.0
_START_TIMEOUT_S = 600.0
_OBJECT_STORE_BYTES = 512 * 1024**2


@contextmanager
def connect(address: str | None = None, cpus: int | None = None) -> Iterator[Machine]:
    """Join the cluster at `address`, or start Ray inside this process on `cpus` cores.

    A Ray that this process is already connected to is used and left running.
    """
    ours = not ray.is_initialized()
    if ours:
        local = (
            {}
            if address
            else {
                "num_cpus": cpus or len(os.sched_getaffinity(0)),
                "object_store_memory": _OBJECT_STORE_BYTES,
                "include_dashboard": False,
            }
        )
        ray.init(address=address or "local", log_to_driver=False, logging_level="error", **local)
    try:
        resources = ray.cluster_resources()
        yield Machine(cpus=resources.get("CPU", 0.0), gpus=resources.get("GPU", 0.0))
    finally:
        if ours:
            ray.shutdown()


@dataclass(frozen=True)
class Outcome(Generic[T, R]):
    """What became of an item: a value, or the reason why every attempt failed."""

    item: T
    attempt: int
    value: R | None = None
    reason: Reason | None = None
    detail: str = ""


@dataclass(frozen=True)
class PoolOptions:
    """workers: actors of `cpus` and `gpus` each. depth: items that one actor holds at a time.
    attempts: tries of an item. timeout_s: an item that takes longer has its actor killed."""

    workers: int
    cpus: float = 1.0
    gpus: float = 0.0
    depth: int = 1
    attempts: int = 3
    timeout_s: float | None = None


@dataclass(frozen=True)
class PoolEvents:
    """What a pool tells while it works; each is called on the driver."""

    retried: Callable[[str], None] = lambda _detail: None
    restarted: Callable[[], None] = lambda: None
    in_flight: Callable[[int], None] = lambda _count: None


class _Host:
    """The actor: builds the callable once, then applies it to items, several at a time."""

    def __init__(self, factory: Callable[[], Callable[..., Any]]) -> None:
        self._factory = factory

    def prepare(self) -> int:
        # Not in __init__: an error raised there reaches the driver only as text.
        self._call = self._factory()
        return os.getpid()

    def call(self, item: Any, *fed: Any) -> Any:
        return self._call(item, *fed)


@cache
def _apply() -> Any:
    """The task that feeds: applies a callable, which Ray itself takes only as plain function."""

    def apply_to_item(call: Callable[[Any], Any], item: Any) -> Any:
        return call(item)

    return ray.remote(num_cpus=1)(apply_to_item)


@dataclass
class _Worker(Generic[T]):
    handle: Any
    holds: dict[Any, tuple[T, float]]  # reference -> item, time it was handed over
    pid: int = 0
    alone: bool = False
    timed_out: bool = False


class Pool(Generic[T, R]):
    """A bounded map: `factory` builds the callable inside each actor, `run` yields outcomes.

    feed: where given, a function run as a Ray task of one CPU per item, whose result is handed to
    the callable as second argument through the object store.
    """

    def __init__(
        self,
        factory: Callable[[], Callable[..., R]],
        options: PoolOptions,
        events: PoolEvents | None = None,
        feed: Callable[[T], Any] | None = None,
    ) -> None:
        self._factory = factory
        self._options = options
        self._events = events or PoolEvents()
        self._feed = None if feed is None else ray.put(feed)
        self._attempts: dict[T, int] = {}
        self._suspects: deque[T] = deque()
        handles = [self._spawn() for _ in range(options.workers)]
        starting = [handle.prepare.remote() for handle in handles]
        self._workers: list[_Worker[T]] = [_Worker(handle, {}) for handle in handles]
        for worker, reference in zip(self._workers, starting, strict=True):
            worker.pid = self._await_ready(reference)

    def __enter__(self) -> Pool[T, R]:
        return self

    def __exit__(self, *_: object) -> None:
        for worker in self._workers:
            ray.kill(worker.handle)

    def pids(self) -> list[int]:
        """Process ids of the actors."""
        return [worker.pid for worker in self._workers]

    def run(self, queue: deque[T]) -> Iterator[Outcome[T, R]]:
        """Outcomes in the order of completion; the caller may add to `queue` meanwhile."""
        while True:
            self._fill(queue)
            references = [ref for worker in self._workers for ref in worker.holds]
            self._events.in_flight(len(references))
            if not references:
                return
            ready, _ = ray.wait(references, num_returns=1, timeout=_POLL_S)
            self._kill_overdue()
            for reference in ready:
                yield from self._collect(reference)

    def _fill(self, queue: deque[T]) -> None:
        for worker in self._workers:
            # Suspects wait for an empty actor; until one is, no actor takes more.
            if self._suspects and not worker.holds:
                worker.alone = True
                self._hand(worker, self._suspects.popleft())
                continue
            while (
                queue
                and not self._suspects
                and not worker.alone
                and len(worker.holds) < self._options.depth
            ):
                self._hand(worker, queue.popleft())

    def _hand(self, worker: _Worker[T], item: T) -> None:
        fed = () if self._feed is None else (_apply().remote(self._feed, item),)
        worker.holds[worker.handle.call.remote(item, *fed)] = (item, time.monotonic())

    def _collect(self, reference: Any) -> Iterator[Outcome[T, R]]:
        worker = next((w for w in self._workers if reference in w.holds), None)
        if worker is None:  # its actor was replaced in this same round
            return
        try:
            value = ray.get(reference)
        except RayTaskError as error:
            item = self._take(worker, reference)
            yield from self._failed(item, Reason.MEMBER_ERROR, _one_line(error.cause or error))
        except RayError as error:
            yield from self._replace(worker, _one_line(error))
        else:
            item = self._take(worker, reference)
            yield Outcome(item, self._attempts.pop(item, 0) + 1, value=value)

    def _take(self, worker: _Worker[T], reference: Any) -> T:
        item, _ = worker.holds.pop(reference)
        if not worker.holds:
            worker.alone = False
        return item

    def _replace(self, worker: _Worker[T], detail: str) -> Iterator[Outcome[T, R]]:
        items = [item for item, _ in worker.holds.values()]
        reason = Reason.TIMED_OUT if worker.timed_out else Reason.WORKER_DIED
        ray.kill(worker.handle)
        worker.handle, worker.holds = self._spawn(), {}
        worker.alone = worker.timed_out = False
        self._events.restarted()
        worker.pid = self._await_ready(worker.handle.prepare.remote())
        if len(items) == 1:
            yield from self._failed(items[0], reason, detail)
        else:  # nobody knows which one it was
            self._suspects.extend(items)
            self._events.retried(detail)

    def _failed(self, item: T, reason: Reason, detail: str) -> Iterator[Outcome[T, R]]:
        attempt = self._attempts.get(item, 0) + 1
        if attempt >= self._options.attempts:
            self._attempts.pop(item, None)
            yield Outcome(item, attempt, reason=reason, detail=detail)
            return
        self._attempts[item] = attempt
        self._suspects.append(item)
        self._events.retried(detail)

    def _kill_overdue(self) -> None:
        limit = self._options.timeout_s
        if limit is None:
            return
        now = time.monotonic()
        for worker in self._workers:
            if any(now - since > limit for _, since in worker.holds.values()):
                worker.timed_out = True
                ray.kill(worker.handle)

    def _spawn(self) -> Any:
        actor = ray.remote(
            num_cpus=self._options.cpus,
            num_gpus=self._options.gpus,
            max_concurrency=self._options.depth + 1,
            max_restarts=0,
        )(_Host)
        return actor.remote(self._factory)

    def _await_ready(self, starting: Any) -> int:
        try:
            return int(ray.get(starting, timeout=_START_TIMEOUT_S))
        except GetTimeoutError as error:
            raise LenspipeError(
                f"no worker started in {_START_TIMEOUT_S:g} s: the cluster has no free slot of "
                f"{self._options.cpus:g} CPUs and {self._options.gpus:g} GPUs"
            ) from error
        except RayError as error:
            cause = error.cause if isinstance(error, RayTaskError) else error
            if isinstance(cause, LenspipeError):
                raise cause from error
            raise LenspipeError(f"a worker could not start: {_one_line(cause)}") from error


def _one_line(error: BaseException) -> str:
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text}"[:500]
