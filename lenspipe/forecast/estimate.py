"""From what a sample took to what a survey will take on any number of nodes. Pure."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property, lru_cache

import numpy as np
from jaxtyping import Float64

from lenspipe.forecast.bottleneck import find_bottleneck
from lenspipe.forecast.figures import (
    Bytes,
    Node,
    Plan,
    Prices,
    Sampled,
    Scaling,
    Stages,
    StartUp,
)
from lenspipe.forecast.sample import Sample, StageSample
from lenspipe.forecast.simulation import Cluster, Outcome, draw_seconds, simulate
from lenspipe.forecast.spread import FEW, Interval, interval, none_found, ratio_draws
from lenspipe.stages.planning import even_rows

HOUR_S = 3600.0
# Of the driver for one shard, and for each shard that is with a worker then (docs/performance.md):
# `python -m benchmarks.soak`, `python -m benchmarks.driver_scan`.
DRIVER_S = 1.4e-3
DRIVER_SCAN_S = 0.6e-6
# Of the driver for one selected row (docs/performance.md): a sample is too small to show them.
PLAN_ROW_S = 3.5e-6
PUBLISH_ROW_S = 8.4e-6
_BETWEEN = 16  # numbers of nodes that are tried between two of the table


@dataclass(frozen=True)
class Wanted:
    """nodes: so many; None: the fewest that meet the deadline, or one without one. deadline_s: of
    the whole run. storage_bytes_per_s: most that the store gives all nodes together.
    node_failures_per_day: of one node."""

    nodes: int | None = None
    deadline_s: float | None = None
    max_nodes: int = 512
    prices: Prices = field(default_factory=Prices)
    storage_bytes_per_s: float | None = None
    node_failures_per_day: float = 0.0


def make_forecast(survey: str, sample: Sample, wanted: Wanted) -> Plan:
    """The whole plan. The same sample gives the same plan."""
    model = _Model(sample, wanted)
    nodes = wanted.nodes or model.fewest()
    hours = model.hours(nodes)
    node_hours = hours.scaled(nodes)
    gpu_hours = model.score_s(nodes).scaled(
        nodes * sample.slots.scorers * sample.slots.gpus / HOUR_S
    )
    bytes_read = model.bytes_read
    scored = sample.score
    met = None
    if wanted.deadline_s is not None:
        met = _upper(hours) * HOUR_S <= wanted.deadline_s
    use, bottleneck = find_bottleneck(
        sample, model.outcome(nodes), model.seconds(nodes), model.storage_use(nodes)
    )
    return Plan(
        survey=survey,
        node=Node(
            cpus=sample.machine.cpus,
            gpus=sample.machine.gpus,
            scorers=sample.slots.scorers,
            provider=sample.slots.provider,
        ),
        sample=Sampled(
            parts=len(sample.part_rows),
            rows=sum(sample.part_rows),
            selected=sum(sample.part_selected),
            shards=scored.items if scored else 0,
            scored=sum(scored.rows) if scored else 0,
            seconds=sample.seconds,
        ),
        rows=sample.total_rows,
        parts=sample.total_parts,
        selected=model.selected,
        shards=model.shards(nodes),
        bytes_read=bytes_read,
        start_up=model.start_up,
        stages=Stages(
            threshold_s=sample.threshold_s,
            select_s=model.select_s(nodes),
            plan_s=model.plan_s,
            score_s=model.score_s(nodes),
            publish_s=model.publish_s,
        ),
        nodes=nodes,
        deadline_hours=None if wanted.deadline_s is None else wanted.deadline_s / HOUR_S,
        meets=met,
        hours=hours,
        node_hours=node_hours,
        gpu_hours=gpu_hours,
        cost=_cost(wanted.prices, node_hours, gpu_hours, bytes_read),
        prices=wanted.prices,
        use=use,
        bottleneck=bottleneck,
        scaling=tuple(model.scaling(count) for count in model.counts),
        cautions=sample.cautions,
    )


def _cost(prices: Prices, nodes: Interval, gpus: Interval, read: Bytes) -> Interval:
    def at(end: Callable[[Interval], float]) -> float:
        per_tb = (read.catalogue + end(read.pixels)) / 1e12
        return prices.node_hour * end(nodes) + prices.gpu_hour * end(gpus) + prices.read_tb * per_tb

    expected = at(lambda i: i.expected)
    if nodes.low is None or nodes.high is None:
        return Interval(expected=expected)
    return Interval(expected=expected, low=at(_lower), high=at(_upper))


def _lower(value: Interval) -> float:
    return value.expected if value.low is None else value.low


def _upper(value: Interval) -> float:
    return value.expected if value.high is None else value.high


class _Model:
    """Times on so many nodes, each number simulated once."""

    def __init__(self, sample: Sample, wanted: Wanted) -> None:
        self._sample = sample
        self._wanted = wanted
        self._outcome = lru_cache(maxsize=None)(self._simulate)
        rng = np.random.default_rng(0)
        rows = np.array(sample.part_rows, float)
        self._rows_draws = ratio_draws(
            np.array(sample.part_selected, float), rows, rng, sample.total_parts
        )
        self._select_draws = _speed_draws(sample.select, rng)
        scored = sample.score
        self._score_draws = _speed_draws(scored, rng) if scored else np.ones_like(self._rows_draws)
        self._knows_rows = len(sample.part_rows) >= min(FEW, sample.total_parts)
        # Of what was not seen the time is not known, unless there is none of it.
        self._knows_speed = scored.items >= FEW if scored else self.selected.high == 0.0

    @cached_property
    def counts(self) -> list[int]:
        """Numbers of nodes for the table: powers of two, and the most."""
        most = self._wanted.max_nodes
        return sorted({*(1 << k for k in range(most.bit_length())), most})

    @cached_property
    def start_up(self) -> StartUp:
        """What a run does before rows move."""
        s = self._sample
        return StartUp(
            check_s=s.check_s,
            ray_s=s.ray_s,
            select_s=s.select.start_up_s,
            score_s=s.score.start_up_s if s.score else 0.0,
        )

    @cached_property
    def selected(self) -> Interval:
        """Selected rows of the whole catalogue."""
        s = self._sample
        if not sum(s.part_selected):
            return none_found(sum(s.part_rows), s.total_rows - sum(s.part_rows))
        return interval(self._sample.selected, self._rows_draws, self._knows_rows)

    @cached_property
    def plan_s(self) -> Interval:
        """Sorting the selected rows into shards."""
        s = self._sample
        more = self.selected.plus(-sum(s.part_selected)).scaled(PLAN_ROW_S)
        return Interval(
            expected=max(0.0, more.expected),
            low=None if more.low is None else max(0.0, more.low),
            high=None if more.high is None else max(0.0, more.high),
        ).plus(s.plan_s)

    @cached_property
    def publish_s(self) -> float:
        """Ending Ray, listing the pixels again, catalogue, candidates, report."""
        s, costs = self._sample, self._sample.publish
        if s.score is None:
            return 0.0
        rows = s.selected
        candidates = costs.top if costs.top is not None else costs.candidates * rows
        stamps = min(candidates, costs.stamps, rows)
        return (
            s.ray_end_s
            + s.listing_s
            + costs.fixed_s
            + PUBLISH_ROW_S * max(0.0, rows - sum(s.score.rows))
            + (costs.open_s if stamps >= 1.0 else 0.0)
            + costs.stamp_s * stamps
            + costs.map_s * min(stamps, costs.maps)
            + costs.known_s * s.total_parts
        )

    @cached_property
    def bytes_read(self) -> Bytes:
        """By the two stages."""
        s = self._sample
        pixels = Interval(expected=0.0)
        if s.score:
            pixels = self.selected.scaled(s.score.bytes_per_row)
        return Bytes(catalogue=s.select.bytes_per_row * s.total_rows, pixels=pixels)

    def shards(self, nodes: int) -> int:
        """Shards of stage `score`."""
        rows = round(self._sample.selected)
        return -(-rows // self._shard_rows(nodes)) if rows else 0

    def _shard_rows(self, nodes: int) -> int:
        s = self._sample
        return even_rows(round(s.selected), s.shard_rows, nodes * s.slots.scorers)

    def select_s(self, nodes: int) -> Interval:
        """Stage `select`."""
        seconds = self._outcome(nodes)[0].seconds + self._sample.select.warm_up_s
        seconds = max(seconds, self._stored_s(self.bytes_read.catalogue))
        return interval(seconds, self._select_draws, self._sample.select.items >= FEW)

    def score_s(self, nodes: int) -> Interval:
        """Stage `score`."""
        draws = self._score_draws * self._rows_draws
        return interval(self._scored_s(nodes), draws, self._knows_rows and self._knows_speed)

    def _scored_s(self, nodes: int) -> float:
        scored = self._sample.score
        simulated = self._outcome(nodes)[1].seconds + (scored.warm_up_s if scored else 0.0)
        return max(simulated, self._stored_s(self.bytes_read.pixels.expected))

    def _stored_s(self, size: float) -> float:
        """What the store needs at least for so many bytes."""
        rate = self._wanted.storage_bytes_per_s
        return 0.0 if rate is None else size / rate

    def storage_use(self, nodes: int) -> float | None:
        """Share of what the store gives; None where that is not known."""
        if self._wanted.storage_bytes_per_s is None:
            return None
        return self._stored_s(self.bytes_read.pixels.expected) / max(1e-9, self._scored_s(nodes))

    def outcome(self, nodes: int) -> Outcome:
        """Stage `score` as it was simulated."""
        return self._outcome(nodes)[1]

    def seconds(self, nodes: int) -> dict[str, float]:
        """Seconds by what they go into: `select`, `score`, and what one node does alone."""
        s = self._sample
        alone = s.threshold_s + self.plan_s.expected + self.publish_s + self.start_up.seconds
        return {
            "select": self.select_s(nodes).expected,
            "score": self._scored_s(nodes),
            "alone": alone,
        }

    def hours(self, nodes: int) -> Interval:
        """The whole run."""
        return self._hours(self.seconds(nodes))

    def _hours(self, parts: dict[str, float]) -> Interval:
        select, score = parts["select"], parts["score"]
        expected = select + score + parts["alone"]
        draws = parts["alone"] + select * self._select_draws
        draws = draws + score * self._score_draws * self._rows_draws
        enough = self._knows_rows and self._knows_speed
        return interval(expected / HOUR_S, draws / expected, enough)

    def scaling(self, nodes: int) -> Scaling:
        """One row of the table."""
        outcome = self.outcome(nodes)
        return Scaling(
            nodes=nodes,
            hours=self.hours(nodes),
            efficiency=outcome.efficiency,
            driver_use=outcome.driver_use,
        )

    def least_hours(self, nodes: int) -> Interval:
        """The whole run, did no worker ever wait: no number of nodes is quicker than this."""
        s, alone = self._sample, self.seconds(1)["alone"]
        select = s.total_parts * s.select.slot_s / (nodes * s.select_workers)
        score = s.score.slot_s_per_row * s.selected / (nodes * s.slots.scorers) if s.score else 0.0
        return self._hours(
            {
                "select": max(select, self._stored_s(self.bytes_read.catalogue)),
                "score": max(score, self._stored_s(self.bytes_read.pixels.expected)),
                "alone": alone,
            }
        )

    def fewest(self) -> int:
        """The fewest nodes with which the upper end meets the deadline; the most where none do."""
        deadline_s, most = self._wanted.deadline_s, self._wanted.max_nodes
        if deadline_s is None:
            return 1

        def meets(hours: Interval) -> bool:
            return _upper(hours) * HOUR_S <= deadline_s

        # More nodes are not always quicker, so that all that might do are tried, from below.
        least = bisect_left(range(1, most + 1), True, key=lambda n: meets(self.least_hours(n))) + 1
        tried = [count for count in self.counts if count >= least]
        enough = next((count for count in tried if meets(self.hours(count))), None)
        if enough is None and tried:
            enough = next((n for n in self._beside_best() if meets(self.hours(n))), None)
        if enough is None:
            return most
        return next(n for n in range(least, enough + 1) if meets(self.hours(n)))

    def _beside_best(self) -> range:
        """Numbers between those of the table that stand beside the quickest."""
        best = min(self.counts, key=lambda count: self.hours(count).expected)
        place = self.counts.index(best)
        low, high = self.counts[max(0, place - 1)], self.counts[place + 1 :][:1] or [best]
        return range(low, high[0], max(1, (high[0] - low) // _BETWEEN))

    def _simulate(self, nodes: int) -> tuple[Outcome, Outcome]:
        s, wanted = self._sample, self._wanted
        rng = np.random.default_rng(nodes)
        rate = wanted.node_failures_per_day / 24.0

        def run(shards: int, item_s: float, workers: int, depth: int, one: StageSample) -> Outcome:
            seconds = draw_seconds(shards, item_s * _relative(one), rng)
            cluster = Cluster(
                nodes=nodes,
                workers=workers,
                depth=depth,
                driver_s=DRIVER_S,
                driver_scan_s=DRIVER_SCAN_S,
                failures_per_node_hour=rate,
            )
            return simulate(seconds, cluster, rng)

        selecting = run(s.total_parts, s.select.slot_s, s.select_workers, 1, s.select)
        if s.score is None:
            return selecting, run(0, 0.0, s.slots.scorers, s.slots.depth, s.select)
        item_s = s.score.slot_s_per_row * s.selected / max(1, self.shards(nodes))
        scoring = run(self.shards(nodes), item_s, s.slots.scorers, s.slots.depth, s.score)
        return selecting, scoring


def _relative(one: StageSample) -> Float64[np.ndarray, " k"]:
    """What each item of the sample took, over the mean; 1 where nothing was measured."""
    seconds = np.array(one.seconds, float)
    mean = seconds.mean() if len(seconds) else 0.0
    return seconds / mean if mean > 0.0 else np.ones(1)


def _speed_draws(one: StageSample, rng: np.random.Generator) -> Float64[np.ndarray, " turns"]:
    """Draws of the time of a row, about 1."""
    return ratio_draws(np.array(one.seconds), np.array(one.rows, float), rng)
