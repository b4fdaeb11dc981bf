"""A small part of a survey, done for real: the stages of a run in a folder that is thrown away.

Nothing is written where the survey file would write. What is measured is the machine this runs on.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TypeVar

import numpy as np
import psutil

from lenspipe.config import Survey
from lenspipe.forecast.publishing import PublishCosts, measure_publish
from lenspipe.forecast.stage_clock import StageClock, StageTimes
from lenspipe.job import score_shards, select, settle_threshold
from lenspipe.processes.slots import Machine, Slots, plan_slots
from lenspipe.run.opening import Job, check_and_open
from lenspipe.run.shard_record import ShardRecord
from lenspipe.runtime import connect
from lenspipe.select.sources import stored_share
from lenspipe.stages.planning import MIN_SHARD_ROWS, SHARDS_PER_WORKER, even_rows, make_plan
from lenspipe.telling.events import Events
from lenspipe.telling.progress import Progress

R = TypeVar("R")
PARTS = 256  # most parts of the catalogue
SCORE_ROWS = 16_384  # rows that are scored, where workers are few
_PARTS_PER_WORKER = 8  # at least: of fewer, a few slow ones decide
_FULL_BATCHES = 4  # of a shard of the sample: its last one is padded
_MOST_SHARED = 0.5  # of units, from which on a sample is sparser than the run
_SPARE = 1.2  # of parts, since some hold fewer rows than others
_GPU_BATCH, _CPU_BATCH = 512, 64


@dataclass(frozen=True)
class SampleSize:
    """How much of a survey is done. parts: most of the catalogue's; score_rows: rows whose pixels
    are read, more where many workers need a few batches each. seed: which ones."""

    parts: int = PARTS
    score_rows: int = SCORE_ROWS
    seed: int = 0


@dataclass(frozen=True)
class StageSample:
    """One stage of the sample. slot_s: time of a worker for one item while all work. warm_up_s: by
    how much the workers' first items take longer. seconds, rows: of each item, without waiting for
    its worker's other ones. phases: mean seconds of its steps. cpu_busy: share of the machine's
    processors that were busy meanwhile, whoever used them."""

    items: int
    slot_s: float
    start_up_s: float
    warm_up_s: float
    seconds: tuple[float, ...]
    rows: tuple[int, ...]
    phases: dict[str, float]
    bytes_read: int
    cpu_busy: float

    @property
    def slot_s_per_row(self) -> float:
        """Time of a worker for one row."""
        return self.slot_s * self.items / max(1, sum(self.rows))

    @property
    def bytes_per_row(self) -> float:
        """Bytes read for one row."""
        return self.bytes_read / max(1, sum(self.rows))


@dataclass(frozen=True)
class Sample:
    """What was measured, and of what. part_rows, part_selected: of each sampled part. total_parts,
    total_rows: of the catalogue. shard_rows: most rows of a shard of the run. check_s, ray_s: what
    a run does before its first stage; ray_end_s, listing_s: before it publishes. threshold_s:
    choosing the photometry network's threshold. plan_s: planning the selected rows of the
    sample."""

    machine: Machine
    slots: Slots
    total_parts: int
    total_rows: int
    shard_rows: int
    part_rows: tuple[int, ...]
    part_selected: tuple[int, ...]
    select: StageSample
    score: StageSample | None
    publish: PublishCosts
    check_s: float
    ray_s: float
    ray_end_s: float
    listing_s: float
    threshold_s: float
    plan_s: float
    seconds: float
    cautions: tuple[str, ...] = ()

    @property
    def select_workers(self) -> int:
        """Selecting actors on this machine."""
        return max(1, int(self.machine.cpus))

    @property
    def selected(self) -> float:
        """Rows of the whole catalogue that will be selected."""
        return self.total_rows * sum(self.part_selected) / max(1, sum(self.part_rows))


def measure(
    survey: Survey, size: SampleSize, progress: Progress, scratch: str | None = None
) -> Sample:
    """Do a sample of the survey's parts and shards in a folder below `scratch` (the system's
    temporary folder by default), which is removed. InputError as by `lenspipe check`."""
    began = time.monotonic()
    clock = StageClock(survey.name)
    events = Events(clock, progress)
    with TemporaryDirectory(prefix="lenspipe-plan-", dir=scratch) as folder:
        runtime = survey.runtime.model_copy(update={"address": None})
        there = {"output": str(Path(folder, "run")), "runtime": runtime}
        with check_and_open(survey.model_copy(update=there), events) as job:
            checked_s = time.monotonic() - began
            with connect() as machine:
                ray_s = time.monotonic() - began - checked_s
                found = _measure(_Measuring(job, clock, machine, size))
                measured = time.monotonic()
            ray_end_s = time.monotonic() - measured
        return replace(
            found,
            check_s=checked_s,
            ray_s=ray_s,
            ray_end_s=ray_end_s,
            seconds=time.monotonic() - began,
        )


@dataclass(frozen=True)
class _Measuring:
    job: Job
    clock: StageClock
    machine: Machine
    size: SampleSize


def _measure(at: _Measuring) -> Sample:
    job, checked = at.job, at.job.checked
    slots = plan_slots(at.machine, checked.survey.runtime)
    workers = max(1, int(at.machine.cpus))
    _, threshold_s = _timed(lambda: settle_threshold(job))
    rows = _sample_shard_rows(at, slots)
    order = np.random.default_rng(at.size.seed).permutation(len(checked.parts)).tolist()
    sampled, select_sample = _select(at, order, workers, rows * SHARDS_PER_WORKER * slots.scorers)
    records = list(job.run.records("select"))
    names = job.run.part_names("select", records)
    plan, plan_s = _timed(lambda: make_plan(job.run, names, rows, slots.scorers))
    scored = _score(replace(at, job=sampled), plan.shards, slots) if plan.rows else None
    costs = measure_publish(sampled, sum(scored.rows)) if scored else PublishCosts()
    _, listing_s = _timed(checked.pixels_now)
    return Sample(
        machine=at.machine,
        slots=slots,
        total_parts=len(checked.parts),
        total_rows=checked.rows,
        shard_rows=checked.shard_rows,
        part_rows=tuple(record.rows_in for record in records),
        part_selected=tuple(record.rows_out for record in records),
        select=select_sample,
        score=scored,
        publish=costs,
        check_s=0.0,
        ray_s=0.0,
        ray_end_s=0.0,
        listing_s=listing_s,
        threshold_s=threshold_s,
        plan_s=plan_s,
        seconds=0.0,
        cautions=tuple(_cautions(job, names, len(records), plan.rows)),
    )


def _sample_shard_rows(at: _Measuring, slots: Slots) -> int:
    """Rows of a shard of the sample: as many as one of the run has, fewer where that would be more
    than should be scored, yet a few batches."""
    checked = at.job.checked
    batch = checked.survey.runtime.batch_size or (_GPU_BATCH if slots.gpus else _CPU_BATCH)
    each = at.size.score_rows // (SHARDS_PER_WORKER * slots.scorers)
    most = even_rows(checked.rows, checked.shard_rows, slots.scorers)
    return min(most, max(each, MIN_SHARD_ROWS, _FULL_BATCHES * batch))


def _select(
    at: _Measuring, order: Sequence[int], workers: int, wanted_rows: int
) -> tuple[Job, StageSample]:
    """Parts of the catalogue in `order` until enough rows are selected or `size.parts` are read."""
    checked, most = at.job.checked, min(at.size.parts, len(order))
    count = min(most, _PARTS_PER_WORKER * workers)
    rounds: list[StageSample] = []
    while True:
        parts = tuple(checked.parts[k] for k in order[:count])
        job = replace(at.job, checked=replace(checked, parts=parts))
        busy = _Busy()
        select(job, workers)
        times = at.clock.times["select"]
        rounds.append(_stage_sample(times, workers, busy.share()))
        found = sum(record.rows_out for record in job.run.commits("select"))
        if found >= wanted_rows or count >= most:
            share = stored_share(job.checked.files(), checked.select_plan.stored_columns)
            return job, _together(rounds, share)
        missing = wanted_rows / found if found else math.inf
        count = most if math.isinf(missing) else min(most, 1 + int(_SPARE * count * missing))


def _together(rounds: Sequence[StageSample], share: float) -> StageSample:
    """Rounds of one stage as one. share: of the catalogue's bytes that the columns take."""
    items = sum(one.items for one in rounds)
    first = rounds[0]

    def mean(name: str) -> float:
        return sum(float(getattr(one, name)) * one.items for one in rounds) / items

    return replace(
        first,
        items=items,
        slot_s=mean("slot_s"),
        seconds=tuple(s for one in rounds for s in one.seconds),
        rows=tuple(r for one in rounds for r in one.rows),
        bytes_read=round(share * sum(one.bytes_read for one in rounds)),
        cpu_busy=mean("cpu_busy"),
    )


def _score(at: _Measuring, shards: Sequence[tuple[int, int]], slots: Slots) -> StageSample:
    """Shards anywhere in the sample's plan, in its order."""
    rng = np.random.default_rng(at.size.seed)
    count = min(len(shards), SHARDS_PER_WORKER * slots.scorers)
    chosen = np.sort(rng.choice(len(shards), count, replace=False)).tolist()
    busy = _Busy()
    score_shards(at.job, [shards[k] for k in chosen], slots)
    return _stage_sample(at.clock.times["score"], slots.scorers, busy.share())


def _stage_sample(times: StageTimes, workers: int, cpu_busy: float) -> StageSample:
    records = times.records
    steps = sorted({step for record in records for step in record.seconds})
    return StageSample(
        items=len(records),
        slot_s=times.slot_seconds(workers),
        start_up_s=times.start_up_s,
        warm_up_s=times.warm_up_seconds(workers),
        seconds=tuple(map(_worked, records)),
        rows=tuple(record.rows_in for record in records),
        phases={s: float(np.mean([r.seconds.get(s, 0.0) for r in records])) for s in steps},
        bytes_read=sum(record.bytes_read for record in records),
        cpu_busy=cpu_busy,
    )


def _worked(record: ShardRecord) -> float:
    return sum(seconds for step, seconds in record.seconds.items() if step != "wait")


def _cautions(job: Job, names: Sequence[str], sampled: int, planned: int) -> Iterator[str]:
    checked = job.checked
    if checked.survey.runtime.address is not None:
        yield "measured on this machine, not on the cluster of runtime.address"
    if not planned:
        yield f"no row was selected in {sampled} parts: scoring is not known (--parts takes more)"
    elif sampled < len(checked.parts):
        shared = _shared_units(job, names)
        if shared > _MOST_SHARED:
            yield (
                f"{shared:.0%} of the tiles or chunks that a sampled part needs are needed by "
                "others too, so that a shard of the sample is spread over more of them than one of "
                f"the run: reading is over-estimated (--parts {len(checked.parts)} takes all)"
            )


def _shared_units(job: Job, names: Sequence[str]) -> float:
    """Of the units of storage that the sampled parts need, the share that were needed before."""
    units = [np.unique(job.run.read_part(name, ["locality"])["locality"]) for name in names]
    needed = sum(map(len, units))
    return 1.0 - len(np.unique(np.concatenate(units))) / needed if needed else 0.0


class _Busy:
    """How busy the machine's processors are from here on."""

    def __init__(self) -> None:
        self._before = psutil.cpu_times()

    def share(self) -> float:
        """Fraction of their time that was spent on anything."""
        now = psutil.cpu_times()
        spent = {name: getattr(now, name) - getattr(self._before, name) for name in now._fields}
        # Linux counts the time of guests in that of users too.
        whole = sum(spent.values()) - spent.get("guest", 0.0) - spent.get("guest_nice", 0.0)
        idle = spent["idle"] + spent.get("iowait", 0.0)
        return 1.0 - idle / whole if whole > 0.0 else 0.0


def _timed(call: Callable[[], R]) -> tuple[R, float]:
    began = time.monotonic()
    return call(), time.monotonic() - began
