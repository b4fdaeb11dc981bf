"""What a run tells Prometheus: every name and help text, and the exporter."""

from __future__ import annotations

import platform
import time
from collections import Counter as Tally
from collections.abc import Callable, Iterable, Sequence
from threading import Event, Thread
from typing import Literal
from wsgiref.simple_server import WSGIServer

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    generate_latest,
    start_http_server,
)
from prometheus_client.core import Metric
from prometheus_client.registry import Collector

from lenspipe import __version__
from lenspipe.catalogue.funnel import count
from lenspipe.models.card import ScoreDistribution
from lenspipe.models.drift import bin_names, fractions, population_stability
from lenspipe.run_directory import ShardRecord, Stage
from lenspipe.telling.throughput import Throughput

# From a shard of cheap rows to one that waits for a slow store (s).
_SECONDS = (0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0, 300.0, 1000.0, 3000.0)
_ANSWER_S = 1.0  # what an answer may take to be written
STATES = ("planned", "running", "done", "retried", "split")
End = Literal["done", "failed", "stopped"]


class RunMetrics:
    """The metrics of one run on a registry of their own.

    Counters include what an earlier attempt of the same run committed, so that they end at the
    counts of the funnel; they appear with all of that in them, so that no rate sees it as a leap.
    Throughput and seconds are of this process. clock: monotonic seconds.
    """

    def __init__(self, run_name: str, clock: Callable[[], float] = time.monotonic) -> None:
        self.registry = CollectorRegistry()
        self._clock = clock
        self._begun = clock()
        self._name = run_name
        self._created: str | None = None
        self._speed: dict[Stage, Throughput] = {}
        self._server: tuple[WSGIServer, Thread] | None = None
        self._stated: ScoreDistribution | None = None
        self._counted: dict[str, int] = {}
        self._untold: Tally[tuple[Counter, tuple[str, ...]]] = Tally()
        self._scrapes = _Scrapes(self.registry)
        self._define()
        self._build.labels(__version__, platform.python_version()).set(1)

    def _define(self) -> None:
        registry = self.registry
        self._sources = Counter(
            "lenspipe_sources",
            "Sources that left a stage, by outcome.",
            ("stage", "outcome"),
            registry=registry,
        )
        self._shards = Gauge(
            "lenspipe_shards", "Shards by state.", ("stage", "state"), registry=registry
        )
        self._seconds = Histogram(
            "lenspipe_stage_seconds",
            "Seconds that one shard spent in each step.",
            ("stage", "step"),
            buckets=_SECONDS,
            registry=registry,
        )
        self._cutouts = Counter(
            "lenspipe_cutouts_read", "Cutouts read from storage.", ("stage",), registry=registry
        )
        self._bytes = Counter(
            "lenspipe_cutout_bytes_read",
            "Bytes read from storage for cutouts.",
            ("stage",),
            registry=registry,
        )
        self._batches = Counter(
            "lenspipe_batches", "Batches that the ensemble scored.", ("stage",), registry=registry
        )
        self._halvings = Counter(
            "lenspipe_batch_halvings",
            "Times that a network's batches were made smaller as the device's memory was short.",
            ("stage",),
            registry=registry,
        )
        self._queue = Gauge(
            "lenspipe_queue_depth",
            "Shards that wait for a worker.",
            ("stage",),
            registry=registry,
        )
        self._restarts = Counter(
            "lenspipe_actor_restarts",
            "Actors that died, hung or kept raising and were replaced.",
            registry=registry,
        )
        self._failures = Counter(
            "lenspipe_failures",
            "Sources that failed, by reason.",
            ("stage", "reason"),
            registry=registry,
        )
        self._by_node = Counter(
            "lenspipe_node_sources",
            "Sources that left a stage, by the address of the node that did them.",
            ("stage", "node"),
            registry=registry,
        )
        self._retries = Counter(
            "lenspipe_retries", "Shards that were tried again.", ("stage",), registry=registry
        )
        self._throughput = Gauge(
            "lenspipe_throughput",
            "Sources per second over the last two minutes; after the stage, over all of it.",
            ("stage",),
            registry=registry,
        )
        self._eta = Gauge(
            "lenspipe_eta_seconds",
            "Seconds until the stage ends at the present speed.",
            ("stage",),
            registry=registry,
        )
        self._define_scores()
        self._define_machine()
        self._define_run()

    def _define_run(self) -> None:
        registry = self.registry
        self._build = Gauge(
            "lenspipe_build_info",
            "Versions of lenspipe and Python; always 1.",
            ("version", "python_version"),
            registry=registry,
        )
        self._run = Gauge(
            "lenspipe_run_info",
            "Name of the run, and when it was created; always 1.",
            ("run", "created"),
            registry=registry,
        )
        self._state = Gauge(
            "lenspipe_run_state_timestamp_seconds",
            "Unix time at which this process came to a state of the run; the latest is the state.",
            ("run", "created", "state"),
            registry=registry,
        )

    def _define_scores(self) -> None:
        registry = self.registry
        self._scores = Counter(
            "lenspipe_scores",
            "Scores in each bin of the ensemble's score distribution, by the bin's upper edge.",
            ("below",),
            registry=registry,
        )
        self._reference = Gauge(
            "lenspipe_score_reference_fraction",
            "Share of each bin in the ensemble's score distribution.",
            ("below",),
            registry=registry,
        )
        self._stability = Gauge(
            "lenspipe_score_psi",
            "Population stability index of the run's scores against that distribution.",
            ("population",),
            registry=registry,
        )

    def _define_machine(self) -> None:
        registry = self.registry
        self._provider = Gauge(
            "lenspipe_provider_info",
            "Execution provider that the networks run on; always 1.",
            ("provider",),
            registry=registry,
        )
        self._refusals = Counter(
            "lenspipe_provider_refusals",
            "Times that a provider was not to be had and the run ended rather than take another.",
            ("provider",),
            registry=registry,
        )
        self._disk_free = Gauge(
            "lenspipe_disk_free_bytes",
            "Bytes that the driver may still write to a disk.",
            ("place",),
            registry=registry,
        )
        self._disk_size = Gauge(
            "lenspipe_disk_size_bytes",
            "Bytes of that disk that are free or used.",
            ("place",),
            registry=registry,
        )

    def began(self, created: str) -> None:
        """The run goes on from here. created: when it was begun for the first time, ISO 8601."""
        self._created = created
        self._run.labels(self._name, created).set(1)
        self._state.labels(self._name, created, "running").set_to_current_time()

    def ended(self, state: End) -> None:
        """The run that `began` told of goes on no more. failed: with an exit status of 1 to 3."""
        if self._created is not None:
            self._state.labels(self._name, self._created, state).set_to_current_time()

    def planned(self, stage: Stage, shards: int, rows: int) -> None:
        """A stage will have so many shards and rows."""
        for state in STATES:
            self._shards.labels(stage, state).set(0)
        self._shards.labels(stage, "planned").set(shards)
        self._retries.labels(stage)
        self._queue.labels(stage).set(0)
        self._track(stage, rows)

    def started(self, stage: Stage) -> None:
        """A stage begins: its clock runs from here."""
        self._track(stage, self._speed[stage].total if stage in self._speed else 0)

    def resumed(self, stage: Stage, records: Sequence[ShardRecord]) -> None:
        """Shards of a stage were committed by an earlier attempt; told with `stage_resumed`."""
        self._count(stage, records)
        self._speed[stage].resumed(sum(record.rows_in for record in records))

    def stage_resumed(self, stage: Stage) -> None:
        """All that an earlier attempt committed is known: the counters begin with it."""
        self._count(stage, [])
        self._tell()

    def committed(self, record: ShardRecord) -> None:
        """A shard was committed."""
        self._count(record.stage, [record])
        self._tell()
        self._speed[record.stage].add(record.rows_in)
        for step, seconds in record.seconds.items():
            self._seconds.labels(record.stage, step).observe(seconds)

    def _count(self, stage: Stage, records: Sequence[ShardRecord]) -> None:
        self._shards.labels(stage, "done").inc(len(records))
        for outcome, rows in _outcomes(stage, records).items():
            self._untold[self._sources, (stage, outcome)] += rows
        if stage == "score":
            for counter, counted in (
                (self._cutouts, sum(record.cutouts for record in records)),
                (self._bytes, sum(record.bytes_read for record in records)),
                (self._batches, sum(record.batches for record in records)),
                (self._halvings, sum(record.halvings for record in records)),
            ):
                self._untold[counter, (stage,)] += counted
        for record in records:
            self._count_details(record)
        if self._stated is not None and stage == "score":
            index, _ = population_stability(self._stated, self._counted)
            self._stability.labels(self._stated.population).set(index)

    def _count_details(self, record: ShardRecord) -> None:
        for reason, rows in record.reasons.items():
            self._untold[self._failures, (record.stage, reason)] += rows
        if record.node:
            self._untold[self._by_node, (record.stage, record.node)] += record.rows_in
        stated = set() if self._stated is None else set(bin_names(self._stated))
        for name in stated & set(record.scores):
            self._untold[self._scores, (name,)] += record.scores[name]
            self._counted[name] = self._counted.get(name, 0) + record.scores[name]

    def _tell(self) -> None:
        for (counter, labels), counted in self._untold.items():
            counter.labels(*labels).inc(counted)
        self._untold.clear()

    def compare_scores(self, stated: ScoreDistribution | None) -> None:
        """Scores of shards that are told of from now on are held against a distribution."""
        self._stated = stated
        if stated is None:
            return
        for name, share in zip(bin_names(stated), fractions(stated.counts), strict=True):
            self._reference.labels(name).set(share)
            self._untold[self._scores, (name,)] += 0

    def provider(self, name: str) -> None:
        """The networks run on this."""
        self._provider.labels(name).set(1)
        self._refusals.labels(name)

    def provider_refused(self, name: str) -> None:
        """A provider was not to be had, and the run ends."""
        self._refusals.labels(name).inc()

    def disk(self, place: str, free_bytes: int, size_bytes: int) -> None:
        """So much of a disk is free, of so much."""
        self._disk_free.labels(place).set(free_bytes)
        self._disk_size.labels(place).set(size_bytes)

    def retried(self, stage: Stage) -> None:
        """A shard is tried again."""
        self._shards.labels(stage, "retried").inc()
        self._retries.labels(stage).inc()

    def split(self, stage: Stage) -> None:
        """A shard that failed every time was divided."""
        self._shards.labels(stage, "split").inc()

    def actor_restarted(self) -> None:
        """An actor died and was replaced."""
        self._restarts.inc()

    def queue(self, stage: Stage, depth: int, running: int | None = None) -> None:
        """So many shards wait for a worker; running: so many are with one."""
        self._queue.labels(stage).set(depth)
        if running is not None:
            self._shards.labels(stage, "running").set(running)

    def finished(self, stage: Stage) -> None:
        """A stage's last shard was committed."""
        self._speed[stage].finish()
        self.queue(stage, 0, 0)

    def serve(self, port: int = 0, host: str = "127.0.0.1") -> int:
        """Serve /metrics until `stop`; returns the port, a free one where 0 was asked for.

        OSError where the port is taken.
        """
        served = CollectorRegistry()
        served.register(self._scrapes)
        server, thread = start_http_server(port, addr=host, registry=served)
        self._server = server, thread
        return server.server_port

    def linger(self, seconds: float, tell: Callable[[str], None]) -> None:
        """Go on serving until the present state was scraped, at most so many seconds; told first.

        Not where nothing is served, the run never began, or nobody scraped in as long a time.
        """
        if self._server is None or self._created is None:
            return
        if self._scrapes.any or self._clock() - self._begun <= seconds:
            tell(f"ended; its metrics wait for a last scrape, at most {seconds:g} s")
            self._scrapes.wait(seconds)

    def stop(self) -> None:
        """End what `serve` began; nothing where nothing is served."""
        if self._server is None:
            return
        server, thread = self._server
        self._server = None
        server.shutdown()
        server.server_close()
        thread.join()

    def text(self) -> bytes:
        """The present state in the text format, for `metrics.prom`."""
        return generate_latest(self.registry)

    def _track(self, stage: Stage, rows: int) -> None:
        speed = self._speed[stage] = Throughput(rows, clock=self._clock)
        self._throughput.labels(stage).set_function(speed.per_second)
        self._eta.labels(stage).set_function(speed.seconds_left)


class _Scrapes(Collector):
    """What a registry has, and whether somebody asked."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._registry = registry
        self.any = False
        self._now = Event()

    def describe(self) -> Iterable[Metric]:
        """No names: nothing else is registered beside it."""
        return ()

    def collect(self) -> Iterable[Metric]:
        """Asked once more."""
        self.any = True
        self._now.set()
        return self._registry.collect()

    def wait(self, seconds: float) -> None:
        """Until somebody has asked from now on, and has had a moment to get the answer."""
        self._now.clear()
        if self._now.wait(seconds):
            time.sleep(_ANSWER_S)


def _outcomes(stage: Stage, records: Sequence[ShardRecord]) -> dict[str, int]:
    """Rows by where they went, in the funnel's words; outcomes that have none are told too."""
    if stage == "score":
        scored = sum(record.rows_out for record in records)
        return {"scored": scored, "failed": sum(record.rows_failed for record in records)}
    went = count(records, [])
    return {
        "cut": went.cut,
        "rejected": went.rejected,
        "selected": went.selected,
        "failed": went.failed,
    }
