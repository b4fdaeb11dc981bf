"""A discrete-event simulation of one stage: shards on the workers of many nodes.

The driver keeps every worker supplied, handles one completed shard at a time, and hands the shards
of a node that was lost to others. `docs/planning.md` says what is assumed.
"""

from __future__ import annotations

import heapq
import math
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64, Int64

_NONE = -1


@dataclass(frozen=True)
class Cluster:
    """What shards run on.

    nodes of `workers` each. depth: shards that one worker has at a time, the one it works on
    included. driver_s: what the driver needs for one shard, one after the other. driver_scan_s:
    what it needs besides, in each of its rounds, for every shard that is with a worker then; a
    round takes all that ended since the one before it began. failures_per_node_hour:
    rate at which a node is lost with what it works on. back_after_s: until another stands in its
    place, its workers ready.
    """

    nodes: int
    workers: int
    depth: int = 1
    driver_s: float = 0.0
    driver_scan_s: float = 0.0
    failures_per_node_hour: float = 0.0
    back_after_s: float = 300.0

    def __post_init__(self) -> None:
        if min(self.nodes, self.workers, self.depth) < 1:
            raise ValueError("expected at least one node, worker and shard at a time")

    @property
    def all_workers(self) -> int:
        """Workers of all nodes."""
        return self.nodes * self.workers


@dataclass(frozen=True)
class Stragglers:
    """Shards that take longer than the others do: this fraction of them, so many times as long."""

    fraction: float = 0.0
    factor: float = 1.0


@dataclass(frozen=True)
class Outcome:
    """What a simulated stage took.

    seconds: until the driver has handled the last shard. busy_s, lost_s: time of workers on shards
    that were done, and on attempts that ended with their node. done: attempts of each shard that
    ended well. failures: nodes that were lost. driver_s: time in which the driver was busy.
    """

    seconds: float
    busy_s: float
    lost_s: float
    driver_s: float
    failures: int
    done: Int64[np.ndarray, " shards"]
    all_workers: int

    @property
    def efficiency(self) -> float:
        """Fraction of the workers' time that went into shards that were done."""
        return self.busy_s / (self.seconds * self.all_workers) if self.seconds else 1.0

    @property
    def driver_use(self) -> float:
        """Fraction of the time in which the driver was busy."""
        return self.driver_s / self.seconds if self.seconds else 0.0


def draw_seconds(
    shards: int,
    measured_s: Float64[np.ndarray, " k"],
    rng: np.random.Generator,
    stragglers: Stragglers | None = None,
) -> Float64[np.ndarray, " shards"]:
    """Times of so many shards, drawn from those that were measured; their mean is kept.

    Stragglers, which a sample is too small to hold, come on top.
    """
    if len(measured_s) == 0:
        raise ValueError("expected at least one measured shard")
    drawn = rng.choice(measured_s, shards)
    mean = drawn.mean() if shards else 0.0
    if mean > 0.0:
        drawn = drawn * (measured_s.mean() / mean)
    if stragglers is not None and stragglers.fraction > 0.0:
        drawn = np.where(rng.random(shards) < stragglers.fraction, stragglers.factor, 1.0) * drawn
    return np.asarray(drawn, np.float64)


def simulate(
    seconds: Float64[np.ndarray, " shards"],
    cluster: Cluster,
    rng: np.random.Generator | None = None,
) -> Outcome:
    """Run shards of these seconds on the cluster. rng: of the failures; needed where there are any.

    Memory and time grow with shards and workers; a million shards take a few seconds.
    """
    if cluster.failures_per_node_hour > 0.0 and rng is None:
        raise ValueError("expected a random generator where nodes fail")
    return _Stage(seconds, cluster, rng).run()


class _Stage:
    """The state of one simulated stage.

    An event is (time, worker, life): a worker ends its shard, or is back. One whose `life` is over
    (its node was lost meanwhile) is passed over.
    """

    def __init__(
        self,
        seconds: Float64[np.ndarray, " shards"],
        cluster: Cluster,
        rng: np.random.Generator | None,
    ) -> None:
        workers = cluster.all_workers
        self._seconds = seconds.tolist()
        self._cluster = cluster
        self._queue = deque(range(len(seconds)))
        self._at = [_NONE] * workers  # shard that a worker is at
        self._began = [0.0] * workers
        self._handed: list[deque[tuple[float, int]]] = [deque() for _ in range(workers)]
        self._lives = [0] * workers
        self._starved = deque[int]()
        self._events: list[tuple[float, int, int]] = []
        self._driver_free = self._round_began = 0.0
        self._driver_busy = self._busy = self._lost = 0.0
        self._held = 0
        self._done = [0] * len(seconds)
        self._failures = 0
        self._losses = _losses(cluster, rng)

    def run(self) -> Outcome:
        self._hand_first()
        left = len(self._seconds)
        failing, lost_node = next(self._losses)
        events, at, lives = self._events, self._at, self._lives
        while left:
            now, worker, life = events[0]
            if failing <= now:
                self._lose(failing, lost_node)
                failing, lost_node = next(self._losses)
                continue
            heapq.heappop(events)
            if life != lives[worker]:
                continue
            shard = at[worker]
            if shard == _NONE:  # it is back, or waited for the driver
                self._supply(worker, now)
                continue
            self._complete(shard, worker, now)
            left -= 1
        return Outcome(
            seconds=self._driver_free if self._done else 0.0,
            busy_s=self._busy,
            lost_s=self._lost,
            driver_s=self._driver_busy,
            failures=self._failures,
            done=np.array(self._done, np.int64),
            all_workers=self._cluster.all_workers,
        )

    def _hand_first(self) -> None:
        """One shard to each worker, then the next, as far as they go; the driver has them ready."""
        for _ in range(self._cluster.depth):
            for worker in range(min(self._cluster.all_workers, len(self._queue))):
                self._handed[worker].append((0.0, self._queue.popleft()))
                self._held += 1
        for worker in range(self._cluster.all_workers):
            self._start(worker, 0.0)

    def _complete(self, shard: int, worker: int, now: float) -> None:
        self._done[shard] += 1
        self._busy += self._seconds[shard]
        self._at[worker] = _NONE
        cost = self._cluster.driver_s
        if now >= self._round_began:  # else the round that the driver begins next takes it too
            cost += self._cluster.driver_scan_s * self._held
            self._round_began = max(self._driver_free, now)
        self._held -= 1
        self._driver_free = max(self._driver_free, now) + cost
        self._driver_busy += cost
        if self._queue:
            self._handed[worker].append((self._driver_free, self._queue.popleft()))
            self._held += 1
        self._start(worker, now)

    def _start(self, worker: int, now: float) -> None:
        """Begin the shard that the worker was handed first; it may still be on its way."""
        if not self._handed[worker]:
            self._starved.append(worker)
            return
        when, shard = self._handed[worker].popleft()
        began = when if when > now else now
        self._at[worker] = shard
        self._began[worker] = began
        event = (began + self._seconds[shard], worker, self._lives[worker])
        heapq.heappush(self._events, event)

    def _supply(self, worker: int, now: float) -> None:
        """Hand a worker that has nothing as many shards as it may have."""
        while self._queue and len(self._handed[worker]) < self._cluster.depth:
            self._handed[worker].append((now, self._queue.popleft()))
            self._held += 1
        self._start(worker, now)

    def _lose(self, when: float, node: int) -> None:
        """Node lost: its workers' shards go back, it returns later. A node that is away already is
        not lost twice."""
        first = node * self._cluster.workers
        workers = range(first, first + self._cluster.workers)
        if all(self._is_away(worker) for worker in workers):
            return
        self._failures += 1
        back = when + self._cluster.back_after_s
        for worker in workers:
            shard = self._at[worker]
            lost = [] if shard == _NONE else [shard]
            if lost:
                self._lost += max(0.0, when - self._began[worker])
            lost += [handed for _, handed in self._handed[worker]]
            self._held -= len(lost)
            self._handed[worker].clear()
            self._queue.extendleft(reversed(lost))
            self._at[worker] = _NONE
            self._lives[worker] += 1
            heapq.heappush(self._events, (back, worker, self._lives[worker]))
        waiting = [w for w in self._starved if not first <= w < first + self._cluster.workers]
        self._starved.clear()
        for worker in waiting:
            self._supply(worker, when)

    def _is_away(self, worker: int) -> bool:
        return self._at[worker] == _NONE and worker not in self._starved and self._lives[worker] > 0


def _losses(cluster: Cluster, rng: np.random.Generator | None) -> Iterator[tuple[float, int]]:
    """When a node is lost and which: a Poisson process over all nodes; never, without a rate."""
    rate = cluster.failures_per_node_hour * cluster.nodes / 3600.0
    when = 0.0
    while rate > 0.0 and rng is not None:
        when += rng.exponential(1.0 / rate)
        yield when, int(rng.integers(cluster.nodes))
    while True:
        yield math.inf, _NONE
