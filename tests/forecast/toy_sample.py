"""A sample whose every figure is given: what a plan makes of it can be computed by hand."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from lenspipe.forecast.publishing import PublishCosts
from lenspipe.forecast.sample import Sample, StageSample
from lenspipe.processes.slots import Machine, Slots

SELECT = StageSample(
    items=10,
    slot_s=2.0,
    start_up_s=1.0,
    warm_up_s=0.0,
    seconds=(2.0,) * 10,
    rows=(1000,) * 10,
    phases={"select": 2.0},
    bytes_read=10_000 * 40,
    cpu_busy=0.9,
)
SCORE = StageSample(
    items=10,
    slot_s=10.0,
    start_up_s=3.0,
    warm_up_s=0.0,
    seconds=(10.0,) * 10,
    rows=(100,) * 10,
    phases={"read": 2.0, "normalise": 0.5, "wait": 1.0, "infer": 9.0, "write": 0.5},
    bytes_read=1000 * 5000,
    cpu_busy=0.9,
)
PUBLISH = PublishCosts(
    fixed_s=2.0, open_s=1.0, stamp_s=0.01, map_s=0.1, candidates=0.01, stamps=10_000, maps=100
)


def sample(**changes: Any) -> Sample:
    """1000 parts of 1000 rows, a tenth of them selected: 100,000 rows in shards of 1000, 0.1 s each
    of one of two scorers. changes: of the sample's fields."""
    plain = Sample(
        machine=Machine(2.0, 0.0),
        slots=Slots(scorers=2, cpus=1.0, gpus=0.0, readers=0, depth=2, provider="cpu"),
        total_parts=1000,
        total_rows=1_000_000,
        shard_rows=1000,
        part_rows=(1000,) * 10,
        part_selected=(100,) * 10,
        select=SELECT,
        score=SCORE,
        publish=PUBLISH,
        check_s=4.0,
        ray_s=5.0,
        ray_end_s=0.75,
        listing_s=0.5,
        threshold_s=6.0,
        plan_s=0.1,
        seconds=60.0,
    )
    return replace(plain, **changes)
