"""What publishing a sample's scores costs, told apart into what grows with what."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace

import pyarrow as pa

from lenspipe.catalogue.candidates import StampBatch
from lenspipe.run.opening import Job
from lenspipe.select.lookup import Lookup
from lenspipe.stages.candidate_stamps import CandidateStamps
from lenspipe.stages.publish import publish

_STAMPS = 64  # candidates whose pixels are read for the measurement
_MAPS = 10  # and of which occlusion maps are made


@dataclass(frozen=True)
class PublishCosts:
    """fixed_s: of a catalogue with few rows. open_s: opening reader and networks. stamp_s, map_s:
    of one candidate's pixels and of one occlusion map. known_s: looking up known lenses in one part
    of the catalogue. candidates: share of the scored rows, 0 where `top` says how many. top: that
    number. stamps, maps: most that are made of each."""

    fixed_s: float = 0.0
    open_s: float = 0.0
    stamp_s: float = 0.0
    map_s: float = 0.0
    known_s: float = 0.0
    candidates: float = 0.0
    top: int | None = None
    stamps: int = 0
    maps: int = 0


@dataclass
class _Timed:
    """Stamps whose making is timed by itself."""

    stamps: CandidateStamps
    seconds: float = 0.0
    ids: list[pa.Table] = field(default_factory=list)

    def __call__(self, table: pa.Table) -> Iterator[StampBatch]:
        self.ids.append(table)
        began = time.monotonic()
        for batch in self.stamps(table):
            self.seconds += time.monotonic() - began
            yield batch
            began = time.monotonic()
        self.seconds += time.monotonic() - began


def measure_publish(job: Job, scored: int) -> PublishCosts:
    """Publish what is scored of a sample, with few stamps, and time a few more by themselves."""
    checked, run = job.checked, job.run
    settings = checked.publish_settings()
    rule = settings.rule
    known = settings.known
    stamps = CandidateStamps(
        run,
        checked.score_settings(run.url, "cpu", threads=len(os.sched_getaffinity(0))),
        min(_MAPS, settings.explain),
        checked.survey.runtime.shard_timeout_s,
    )
    timed = _Timed(stamps)
    few = replace(
        settings,
        rule=rule.model_copy(update={"keep": min(rule.keep, _STAMPS)}),
        explain=stamps.explain,
        known=None,
    )
    began = time.monotonic()
    info = publish(run, few, timed)
    fixed = time.monotonic() - began - timed.seconds
    costs = PublishCosts(
        fixed_s=fixed,
        candidates=info.candidates / scored if rule.top is None else 0.0,
        top=rule.top,
        stamps=rule.keep,
        maps=settings.explain,
    )
    if timed.ids:
        costs = _with_stamps(costs, stamps, timed.ids[0])
    if known is not None:
        ra, dec = (known.table[name].to_numpy() for name in ("ra", "dec"))
        part = checked.parts[:1]
        seconds = _seconds(lambda: Lookup(part, checked.select_plan)(ra, dec, known.radius_arcsec))
        costs = replace(costs, known_s=seconds)
    return costs


def _with_stamps(costs: PublishCosts, stamps: CandidateStamps, table: pa.Table) -> PublishCosts:
    """Times of one stamp, of many and of a few with maps, apart from opening the networks."""
    plain = replace(stamps, explain=0)
    one = _seconds(lambda: list(plain(table.slice(0, 1))))
    count = table.num_rows
    each = 0.0
    if count > 1:
        each = max(0.0, _seconds(lambda: list(plain(table))) - one) / (count - 1)
    maps = min(stamps.explain, count)
    of_map = 0.0
    if maps:
        with_maps = _seconds(lambda: list(stamps(table.slice(0, maps))))
        of_map = max(0.0, (with_maps - one - (maps - 1) * each) / maps)
    return replace(costs, open_s=max(0.0, one - each), stamp_s=each, map_s=of_map)


def _seconds(call: Callable[[], object]) -> float:
    began = time.monotonic()
    call()
    return time.monotonic() - began
