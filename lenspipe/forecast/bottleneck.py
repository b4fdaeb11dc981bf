"""What a run waits for: the resource that is busy for most of the time."""

from __future__ import annotations

from collections.abc import Mapping

from lenspipe.forecast.sample import Sample, StageSample
from lenspipe.forecast.simulation import Outcome

_CPU_BOUND = 0.7  # share of the processors' time from which on they are what is short
DRIVER = "driver: committing and handing out shards"
ALONE = "one node: what only the driver does (start, planning, publishing)"
LIMIT = "storage: the rate that was stated"
_READ_STEPS = ("read", "normalise", "write")


def find_bottleneck(
    sample: Sample, outcome: Outcome, seconds: Mapping[str, float], storage_use: float | None
) -> tuple[dict[str, float], str]:
    """Share of its time in which each resource is busy in what takes longest, and its first.

    seconds: of `select`, `score` and `alone`. outcome: of stage `score`.
    """
    longest = max(seconds, key=lambda name: seconds[name])
    if longest == "alone" or (longest == "score" and sample.score is None):
        use = {ALONE: seconds["alone"] / sum(seconds.values())}
    elif longest == "select" or sample.score is None:
        use = {_of_selecting(sample.select): 1.0}
    else:
        use = _of_scoring(sample, sample.score, outcome)
        if storage_use is not None:
            use[LIMIT] = storage_use
    ordered = dict(sorted(use.items(), key=lambda item: -item[1]))
    return ordered, next(iter(ordered))


def _of_selecting(selecting: StageSample) -> str:
    if selecting.cpu_busy >= _CPU_BOUND:
        return "CPUs: selecting from the catalogue"
    return "storage: reading the catalogue"


def _of_scoring(sample: Sample, scoring: StageSample, outcome: Outcome) -> dict[str, float]:
    slots, phases = sample.slots, scoring.phases
    # Shards that one scorer's readers work on while it scores another.
    ahead = slots.readers / slots.scorers if slots.readers else slots.depth - 1
    reading = sum(phases.get(step, 0.0) for step in _READ_STEPS) / max(ahead, 1e-9)
    per_shard = max(scoring.slot_s, 1e-9)
    device = "GPUs" if slots.gpus else "CPUs"
    reads = "CPUs: reading pixels" if scoring.cpu_busy >= _CPU_BOUND else "storage: reading pixels"
    return {
        f"{device}: the networks": outcome.efficiency * phases.get("infer", 0.0) / per_shard,
        reads: outcome.efficiency * reading / per_shard,
        DRIVER: outcome.driver_use,
    }
