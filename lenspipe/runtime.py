"""Ray: connect, and a bounded map over actors that survives the death of any of them.

The map knows nothing of lenses. An item that raises is tried again; an actor that dies is replaced,
and since several items were with it, each of them is tried again alone, so that the one that kills
is known from those that were only near. An actor whose calls keep raising is replaced too, since it
may be the actor that is broken (as after an error of its device) and no item.
"""

from __future__ import annotations

import logging
import os
import signal
import threading
import time
from collections import deque
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, Generic, TypeVar

import ray as _typed_ray
from ray._private import worker as _ray_worker
from ray.exceptions import (
    ObjectLostError,
    OutOfMemoryError,
    RayError,
    RayTaskError,
    TaskCancelledError,
)

from lenspipe.contracts import Reason
from lenspipe.errors import CorruptRunError, HopelessError, LenspipeError, StoppedError
from lenspipe.processes import stopping
from lenspipe.processes.local_ray import Servers, children, end, family, session_folder
from lenspipe.processes.slots import Machine
from lenspipe.processes.time_limit import TimeLimit
from lenspipe.redaction import redact
from lenspipe.storage.patience import ATTEMPTS as STORAGE_ATTEMPTS
from lenspipe.storage.patience import gave_up, rest_s
from lenspipe.storage.refusals import describe_refusal
from lenspipe.storage.store import is_storage_fault

ray: Any = _typed_ray  # its annotations leave out options that its documentation names
T = TypeVar("T", bound=Hashable)
R = TypeVar("R")
_log = logging.getLogger(__name__)
_servers = Servers()  # of the Ray that this process started, if it did
_POLL_S = 1.0
_START_TIMEOUT_S = 600.0
_START_ATTEMPTS = 5
_LONGEST_START_REST_S = 60.0
_OBJECT_STORE_BYTES = 512 * 1024**2
_ENDING = (signal.SIGTERM, signal.SIGINT)
_RAY_STARTS = 3
_MEMORY_REST_S = 5.0
# Calls in a row that raise until the process of an actor is doubted, and new processes in its place
# that may do nothing well until the items are doubted instead.
_RAISED_IN_A_ROW = 2
_RENEWED_IN_VAIN = 4
_MEMORY_HINT = (
    "the memory of the node ran out and Ray killed a worker; fewer runtime.scorers or a smaller "
    "runtime.shard_rows need less"
)


@contextmanager
def connect(address: str | None = None, cpus: int | None = None) -> Iterator[Machine]:
    """Join the cluster at `address`, or start Ray inside this process on `cpus` cores.

    A Ray that this process is already connected to is used and left running.
    """
    with ExitStack() as ending:
        if not ray.is_initialized():
            _quieten()
            folder = None if address else ending.enter_context(session_folder())
            ending.callback(_disconnect)
            with _our_signals():
                if folder is None:
                    _join(address)
                else:
                    _start_local(folder, cpus)
        resources = ray.cluster_resources()
        yield Machine(cpus=resources.get("CPU", 0.0), gpus=resources.get("GPU", 0.0))


def _init(**options: Any) -> None:
    ray.init(log_to_driver=False, logging_level="error", **options)


def _join(address: str | None) -> None:
    """Connect to a cluster that others started, and watch what of it runs on this host."""
    _init(address=address)
    node: Any = _ray_worker._global_node
    _servers.join(node.get_session_dir_path(), node.raylet_socket_name)
    _servers.watch(_end_without_order)


def _start_local(folder: Path, cpus: int | None) -> None:
    """Start Ray; its servers give up after 30 s, which a busy machine may well take."""
    for attempt in range(1, _RAY_STARTS + 1):
        others = children()
        try:
            _init(
                address="local",
                num_cpus=cpus or len(os.sched_getaffinity(0)),
                object_store_memory=_OBJECT_STORE_BYTES,
                include_dashboard=False,
                _temp_dir=str(folder),
            )
        except Exception as error:  # Ray has none of its own for this
            ray.shutdown()
            end(family(children() - others))
            stopping.check()
            if attempt == _RAY_STARTS:
                told = _one_line(error)
                raise StoppedError(
                    f"Ray could not be started: {told}; the same command resumes"
                ) from error
        else:
            _servers.find(others)
            _servers.watch(_end_without_order)
            return


def _end_without_order(dead: str) -> None:
    line = f"StoppedError: {dead} ended before the run could end in order; the same command resumes"
    stopping.end_now(line, 1)


def _disconnect() -> None:
    with _servers.ending():
        ray.shutdown(wait_for_processes=True)


def _quieten() -> None:
    """Ray prints what its servers tell (a page of raylet's log, where that died) on our standard
    output, and has no setting against it."""
    told: Any = _ray_worker
    told.print_to_stdstream = lambda data, **_: _log.info("%s", data)


@contextmanager
def _our_signals() -> Iterator[None]:
    """Ray puts its own handlers in place of the program's, and prints on SIGTERM."""
    handlers = {number: signal.getsignal(number) for number in _ENDING}
    try:
        yield
    finally:
        if threading.current_thread() is threading.main_thread():
            for number, handler in handlers.items():
                signal.signal(number, handler)
            stopping.check()


@dataclass(frozen=True)
class Outcome(Generic[T, R]):
    """What became of an item: a value, or the reason why every attempt failed. node: address of
    the node that gave the value."""

    item: T
    attempt: int
    value: R | None = None
    reason: Reason | None = None
    detail: str = ""
    node: str = ""


@dataclass(frozen=True)
class PoolOptions:
    """workers: actors of `cpus` and `gpus` each. depth: items that one actor holds at a time.
    attempts: tries of an item. storage_attempts: tries where the operating system or an object
    store refuses (OSError), with growing rests; after them the run stops, since no item is at
    fault. The same holds for the start of an actor; where others work, it is tried for as long as
    they do. timeout_s: an item that takes longer has its actor (or the task that feeds it) killed;
    None: as `TimeLimit` judges by the items that ended well."""

    workers: int
    cpus: float = 1.0
    gpus: float = 0.0
    depth: int = 1
    attempts: int = 3
    storage_attempts: int = STORAGE_ATTEMPTS
    timeout_s: float | None = None


@dataclass(frozen=True)
class PoolEvents:
    """What a pool tells while it works; each is called on the driver. retried: why, and which
    items; none where it was the start of an actor that failed."""

    retried: Callable[[str, Sequence[Any]], None] = lambda _detail, _items: None
    restarted: Callable[[], None] = lambda: None
    in_flight: Callable[[int], None] = lambda _count: None


class _Host:
    """The actor: builds the callable once, then applies it to items, several at a time."""

    def __init__(self, factory: Callable[[], Callable[..., Any]]) -> None:
        self._factory = factory

    def prepare(self) -> str:
        """Build the callable; returns the node's address."""
        # Not in __init__: an error raised there reaches the driver only as text.
        self._call = self._factory()
        return str(ray.util.get_node_ip_address())

    def call(self, item: Any, *fed: Any) -> Any:
        return self._call(item, *fed)


@cache
def _apply() -> Any:
    """The task that feeds: applies a callable, which Ray itself takes only as plain function."""

    def apply_to_item(call: Callable[[Any], Any], item: Any) -> Any:
        return call(item)

    return ray.remote(num_cpus=1)(apply_to_item)


@dataclass
class _Held(Generic[T]):
    """An item with an actor. feed: reference to what a task reads for it. handed: when."""

    item: T
    feed: Any
    handed: float
    cancelled: bool = False


@dataclass(eq=False)
class _Worker(Generic[T]):
    """handle: its actor; None while it rests before another start. starting: reference to
    `prepare`; None once it is ready, and while it rests. refusals: starts in a row that storage
    refused; due: when the next is made."""

    handle: Any
    starting: Any
    refusals: int = 0
    due: float = 0.0
    holds: dict[Any, _Held[T]] = field(default_factory=dict)
    since: float = 0.0  # when the item that it has held longest came to be that
    alone: bool = False
    timed_out: bool = False
    raised: int = 0  # calls in a row
    renewed: int = 0  # processes before this one that were doubted, since the last call went well
    node: str = ""  # address, once it is ready

    @property
    def is_ready(self) -> bool:
        """Whether it takes items."""
        return self.handle is not None and self.starting is None


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
        _check_servers(at_once=True)  # without them Ray ends the process in its first call
        self._factory = factory
        self._options = options
        self._events = events or PoolEvents()
        self._feed = None if feed is None else ray.put(feed)
        self._attempts: dict[T, int] = {}
        self._of_late: set[T] = set()
        self._refusals: dict[T, int] = {}
        self._suspects: deque[T] = deque()
        self._resting: list[tuple[float, T]] = []
        self._failed_starts = 0
        self._time = TimeLimit(options.timeout_s)
        self._workers: list[_Worker[T]] = []
        try:
            self._workers += [self._spawn() for _ in range(options.workers)]
            self._await_start()
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Pool[T, R]:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the actors."""
        for worker in self._workers:
            if worker.handle is not None:
                ray.kill(worker.handle)

    def split_off_late(self, pieces: Iterable[T]) -> None:
        """These are parts of an item that timed out: one that does too is not tried again."""
        self._of_late.update(pieces)

    def run(self, queue: deque[T]) -> Iterator[Outcome[T, R]]:
        """Outcomes in the order of completion; the caller may add to `queue` meanwhile.

        StoppedError where storage fails an item every time, many items in a row hang, no worker can
        be started, or Ray's servers are gone. SystemExit where a signal asked for the end.
        """
        alive = time.monotonic()
        while True:
            self._fill(queue)
            holders = self._holders()
            self._events.in_flight(len(holders))
            if not (holders or queue or self._suspects or self._resting):
                return
            starting = {w.starting: w for w in self._workers if w.starting is not None}
            if holders or len(starting) < len(self._workers):
                alive = time.monotonic()
            elif time.monotonic() - alive > _START_TIMEOUT_S:
                raise StoppedError(self._no_slot())
            ready = _wait([*holders, *starting])
            self._kill_overdue()
            # All that is ready in one round: what a round costs grows with the workers, so that
            # one round for each item would bound how many of them one driver serves.
            for reference in ready:
                worker = holders.get(reference) or starting[reference]
                yield from self._collect(worker, reference)
                self._supply(worker, queue)

    def _holders(self) -> dict[Any, _Worker[T]]:
        """The worker of every reference to an item that is with one."""
        return {reference: worker for worker in self._workers for reference in worker.holds}

    def _fill(self, queue: deque[T]) -> None:
        now = time.monotonic()
        self._suspects.extend(item for due, item in self._resting if due <= now)
        self._resting = [(due, item) for due, item in self._resting if due > now]
        self._start_rested()
        for worker in self._workers:
            self._supply(worker, queue)

    def _supply(self, worker: _Worker[T], queue: deque[T]) -> None:
        """Hand a worker as many items as it may have."""
        if not worker.is_ready:
            return
        if self._is_doubted(worker, queue):
            if not worker.holds:
                self._renew(worker)
            return
        # Suspects wait for an empty actor; until one is, no actor takes more.
        if self._suspects and not worker.holds:
            worker.alone = True
            # Where the actor has just raised, other work tells whether it still can do any.
            probes = worker.raised == 1 and queue
            self._hand(worker, (queue if probes else self._suspects).popleft())
            return
        while (
            queue
            and not self._suspects
            and not worker.alone
            and len(worker.holds) < self._options.depth
        ):
            self._hand(worker, queue.popleft())

    def _is_doubted(self, worker: _Worker[T], queue: deque[T]) -> bool:
        """Whether its process may be what is at fault: the last attempt of an item is only ever
        made in a process that is new, or whose last call went well."""
        if not (queue or self._suspects) or worker.renewed >= _RENEWED_IN_VAIN:
            return False
        spare = self._options.attempts - 1
        if self._suspects and not queue:
            spare -= self._attempts.get(self._suspects[0], 0)
        return worker.raised >= (_RAISED_IN_A_ROW if spare > 0 else 1)

    def _renew(self, worker: _Worker[T]) -> None:
        self._respawn(worker).renewed = worker.renewed + 1
        self._events.restarted()

    def _hand(self, worker: _Worker[T], item: T) -> None:
        fed = () if self._feed is None else (_apply().remote(self._feed, item),)
        now = self._time.now()
        if not worker.holds:
            worker.since = now
        reference = worker.handle.call.remote(item, *fed)
        worker.holds[reference] = _Held(item, fed[0] if fed else None, now)

    def _collect(self, worker: _Worker[T], reference: Any) -> Iterator[Outcome[T, R]]:
        if reference == worker.starting:
            self._started(worker)
        elif reference in worker.holds:
            yield from self._completed(worker, reference)
        # Neither: its actor was replaced in this same round.

    def _completed(self, worker: _Worker[T], reference: Any) -> Iterator[Outcome[T, R]]:
        try:
            value = ray.get(reference)
        except RayTaskError as error:
            cause = error.cause or error
            held = self._take(worker, reference)
            reason = Reason.WORKER_ERROR
            if isinstance(cause, RayError):  # a feeding task died, not this actor
                reason = Reason.TIMED_OUT if held.cancelled else Reason.WORKER_DIED
            elif not is_storage_fault(cause):
                worker.raised += 1
            yield from self._failed(held.item, cause, reason)
        except ObjectLostError as error:  # the result is gone, the actor lives
            yield from self._failed(self._take(worker, reference).item, error, Reason.WORKER_DIED)
        except TaskCancelledError as error:  # of the feeding task
            yield from self._failed(self._take(worker, reference).item, error, Reason.TIMED_OUT)
        except RayError as error:  # it died, ran out of memory, its node is gone ...
            yield from self._replace(worker, error)
        else:
            held = self._take(worker, reference)
            self._time.ended_well(self._time.now() - held.handed)
            worker.raised = worker.renewed = 0
            item = held.item
            tries = self._attempts.pop(item, 0) + self._refusals.pop(item, 0)
            yield Outcome(item, tries + 1, value=value, node=worker.node)

    def _take(self, worker: _Worker[T], reference: Any) -> _Held[T]:
        if reference == next(iter(worker.holds)):
            worker.since = self._time.now()
        held = worker.holds.pop(reference)
        if not worker.holds:
            worker.alone = False
        return held

    def _replace(self, worker: _Worker[T], error: RayError) -> Iterator[Outcome[T, R]]:
        items = [held.item for held in worker.holds.values()]
        reason = Reason.TIMED_OUT if worker.timed_out else Reason.WORKER_DIED
        worker.holds.clear()
        self._respawn(worker)
        self._events.restarted()
        if len(items) == 1:
            yield from self._failed(items[0], error, reason)
        else:  # nobody knows which one it was
            self._suspects.extend(items)
            self._events.retried(_one_line(error), items)

    def _failed(self, item: T, error: BaseException, reason: Reason) -> Iterator[Outcome[T, R]]:
        if isinstance(error, HopelessError | CorruptRunError):
            raise error
        if is_storage_fault(error):  # a passing outage: no item is at fault
            self._rest(item, f"{type(error).__name__}: {describe_refusal(error)}")
            return
        detail = _one_line(error)
        attempt = self._attempts.get(item, 0) + 1
        if late := reason is Reason.TIMED_OUT:
            self._time.timed_out(item)
        if attempt >= self._options.attempts or (late and item in self._of_late):
            self._attempts.pop(item, None)
            yield Outcome(item, attempt, reason=reason, detail=detail)
            return
        self._attempts[item] = attempt
        if isinstance(error, OutOfMemoryError):  # whoever took the memory may give it back
            self._resting.append((time.monotonic() + _MEMORY_REST_S * attempt, item))
        else:
            self._suspects.append(item)
        self._events.retried(detail, [item])

    def _rest(self, item: T, detail: str) -> None:
        refusals = self._refusals.get(item, 0) + 1
        if refusals >= self._options.storage_attempts:
            raise gave_up(refusals, detail)
        self._refusals[item] = refusals
        self._resting.append((time.monotonic() + rest_s(refusals), item))
        self._events.retried(detail, [item])

    def _kill_overdue(self) -> None:
        """Kill what is late: the task that still reads the item, else the actor.

        The clock of an item begins when it becomes the oldest of its actor: those behind it, which
        wait for their turn, are never late for its sake.
        """
        now = self._time.now()
        for worker in self._workers:
            if not worker.holds or now - worker.since <= self._time.limit_s:
                continue
            oldest = next(iter(worker.holds.values()))
            worker.since = now  # whatever is done now has as long to take effect
            if oldest.feed is not None and not oldest.cancelled and not _is_ready(oldest.feed):
                oldest.cancelled = True
                ray.cancel(oldest.feed, force=True)
            else:
                worker.timed_out = True
                ray.kill(worker.handle)

    def _spawn(self) -> _Worker[T]:
        actor = ray.remote(
            num_cpus=self._options.cpus,
            num_gpus=self._options.gpus,
            max_concurrency=self._options.depth + 1,
            max_restarts=0,
        )(_Host)
        handle = actor.remote(self._factory)
        return _Worker(handle, handle.prepare.remote())

    def _respawn(self, worker: _Worker[T]) -> _Worker[T]:
        """Another actor in its place; this one takes no more."""
        if worker.handle is not None:
            ray.kill(worker.handle)
            worker.handle = None
        new = self._workers[self._workers.index(worker)] = self._spawn()
        return new

    def _await_start(self) -> None:
        """Until every worker is ready, or one is and the others take too long."""
        deadline = time.monotonic() + _START_TIMEOUT_S
        while waiting := [worker for worker in self._workers if not worker.is_ready]:
            some = len(waiting) < len(self._workers)
            starting = [worker.starting for worker in waiting if worker.starting is not None]
            if some and not starting:  # those that rest start later, beside the work of the others
                return
            ready = set(_wait(starting))
            for worker in [w for w in waiting if w.starting in ready]:
                self._started(worker)
            self._start_rested()
            late = time.monotonic() > deadline - (_START_TIMEOUT_S * 0.9 * some)
            if starting and not ready and late:
                if some:
                    return
                raise StoppedError(self._no_slot())

    def _no_slot(self) -> str:
        return (
            f"no worker started in {_START_TIMEOUT_S:g} s: the cluster has no free slot of "
            f"{self._options.cpus:g} CPUs and {self._options.gpus:g} GPUs"
        )

    def _started(self, worker: _Worker[T]) -> None:
        """Note that a worker is ready; one that died on the way is started again."""
        try:
            worker.node = ray.get(worker.starting)
        except RayTaskError as error:
            cause = error.cause or error
            if isinstance(cause, LenspipeError):
                raise cause from error
            if not is_storage_fault(cause):
                raise LenspipeError(f"a worker could not start: {_one_line(cause)}") from error
            self._rest_before_start(worker, cause)
        except RayError as error:
            self._start_again(worker, error)
        else:
            worker.starting = None
            worker.refusals = self._failed_starts = 0

    def _rest_before_start(self, worker: _Worker[T], error: BaseException) -> None:
        """No process for a while: storage refused what its start reads. Where others work, it is
        tried for as long as they do."""
        line = f"{type(error).__name__}: {describe_refusal(error)}"
        worker.refusals += 1
        ray.kill(worker.handle)
        worker.handle = worker.starting = None
        working = any(other.is_ready for other in self._workers)
        if worker.refusals >= self._options.storage_attempts and not working:
            raise gave_up(worker.refusals, f"a worker could not start: {line}") from error
        worker.due = time.monotonic() + min(rest_s(worker.refusals), _LONGEST_START_REST_S)
        self._events.retried(line, [])

    def _start_rested(self) -> None:
        """New actors for those that have rested."""
        now = time.monotonic()
        for worker in [w for w in self._workers if w.handle is None and w.due <= now]:
            self._respawn(worker).refusals = worker.refusals
            self._events.restarted()

    def _start_again(self, worker: _Worker[T], error: BaseException) -> None:
        """Another actor in its place; after many deaths in a row the others go on without it."""
        self._failed_starts += 1
        if isinstance(error, OutOfMemoryError):
            time.sleep(_MEMORY_REST_S * self._failed_starts)
        if self._failed_starts < _START_ATTEMPTS:
            self._respawn(worker).refusals = worker.refusals
            self._events.restarted()
            return
        if not any(other.is_ready for other in self._workers):
            raise StoppedError(
                f"workers died {self._failed_starts} times while starting: {_one_line(error)}"
                "; the same command resumes"
            ) from error
        ray.kill(worker.handle)
        self._workers.remove(worker)
        self._failed_starts = 0


def _wait(references: Sequence[Any]) -> list[Any]:
    """All that are ready; where none is, the next one, after a second at the latest. No references
    are there while all that is left rests after a fault of the storage."""
    ready: Sequence[Any] = ()
    try:
        if references:
            ready, _ = ray.wait(references, num_returns=len(references), timeout=0)
        if references and not ready:
            ready, _ = ray.wait(references, num_returns=1, timeout=_POLL_S)
        elif not references:
            time.sleep(_POLL_S)
    finally:  # Ray may turn the SystemExit of a signal's handler into an error of its own
        stopping.check()
    _check_servers()
    return list(ready)


def _check_servers(at_once: bool = False) -> None:
    if (dead := _servers.dead(at_once)) is not None:
        raise StoppedError(f"{dead} ended, so no worker can go on; the same command resumes")


def _is_ready(reference: Any) -> bool:
    return bool(ray.wait([reference], timeout=0)[0])


def _one_line(error: BaseException) -> str:
    text = " ".join(str(error).split())
    if isinstance(error, OutOfMemoryError):
        text = f"{_MEMORY_HINT}: {text}"
    return redact(f"{type(error).__name__}: {text}")[:500]
