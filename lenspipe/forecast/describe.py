"""A plan in words."""

from __future__ import annotations

from lenspipe.forecast.figures import Plan
from lenspipe.forecast.spread import Interval

_UNKNOWN = "interval not known"
_LEAST_S = 0.01  # that is told of choosing a threshold; less is that there was none to choose


def describe_plan(plan: Plan) -> list[tuple[str, str]]:
    """(field, text) lines for a person; intervals are of 90%, by the spread of the sample."""
    node, sample, start = plan.node, plan.sample, plan.start_up
    stages = plan.stages
    lines = [
        ("survey", plan.survey),
        (
            "sample",
            f"{sample.parts:,} of {plan.parts:,} parts of the catalogue ({sample.rows:,} rows), "
            f"{sample.shards} shards ({sample.scored:,} cutouts), in {_time(sample.seconds)}",
        ),
        (
            "node",
            f"{node.cpus:g} CPUs, {node.gpus:g} GPUs: {node.scorers} scorers on {node.provider}",
        ),
        ("sources", f"{plan.rows:,}, of which selected {_count(plan.selected)}"),
        ("shards", f"{plan.shards:,}"),
        (
            "read",
            f"{_bytes(plan.bytes_read.pixels.expected)} of pixels, at most "
            f"{_bytes(plan.bytes_read.catalogue)} of the catalogue",
        ),
        ("nodes", _nodes(plan)),
        ("hours", _interval(plan.hours)),
        ("node-hours", _interval(plan.node_hours)),
    ]
    if node.gpus:
        lines.append(("GPU-hours", _interval(plan.gpu_hours)))
    if any(plan.prices.model_dump().values()):
        lines.append(("cost", _interval(plan.cost)))
    lines += [
        ("start-up", f"{_time(start.seconds)} (workers {_time(start.select_s + start.score_s)})"),
        *([("threshold", _time(stages.threshold_s))] if stages.threshold_s > _LEAST_S else []),
        ("select", _times(stages.select_s)),
        ("planning", _times(stages.plan_s)),
        ("score", _times(stages.score_s)),
        ("publish", _time(stages.publish_s)),
        ("bottleneck", plan.bottleneck),
        *(("busy", f"{share:.0%} {name}") for name, share in plan.use.items()),
    ]
    return lines + [("caution", text) for text in plan.cautions]


def scaling_table(plan: Plan) -> list[list[str]]:
    """Rows of cells: hours by number of nodes."""
    head = ["nodes", "hours", "90%", "scorers busy", "driver busy"]
    rows = [
        [
            str(row.nodes),
            f"{row.hours.expected:.3g}",
            "not known" if row.hours.low is None else _ends(row.hours) or "exact",
            f"{row.efficiency:.0%}",
            f"{row.driver_use:.0%}",
        ]
        for row in plan.scaling
    ]
    return [head, *rows]


def _nodes(plan: Plan) -> str:
    if plan.deadline_hours is None:
        return f"{plan.nodes}"
    met = "meet" if plan.meets else "do not meet"
    if plan.hours.high is None:
        met = "may " + ("meet" if plan.meets else "not meet")
    return f"{plan.nodes} {met} the deadline of {plan.deadline_hours:g} hours"


def _interval(value: Interval) -> str:
    ends = _ends(value)
    return f"{value.expected:.3g}" + (f" ({ends})" if ends else "")


def _ends(value: Interval) -> str:
    if value.low is None or value.high is None:
        return _UNKNOWN
    if value.low == value.high:
        return ""
    return f"{value.low:.3g} to {value.high:.3g}"


def _count(value: Interval) -> str:
    ends = _ends(value)
    if value.low is not None and value.high is not None and ends:
        ends = f"{value.low:,.0f} to {value.high:,.0f}"
    return f"{value.expected:,.0f}" + (f" ({ends})" if ends else "")


def _times(value: Interval) -> str:
    if value.low is None or value.high is None:
        return f"{_time(value.expected)} ({_UNKNOWN})"
    if value.low == value.high:
        return _time(value.expected)
    return f"{_time(value.expected)} ({_time(value.low)} to {_time(value.high)})"


def _time(seconds: float) -> str:
    if seconds < 120.0:
        return f"{seconds:.3g} s"
    if seconds < 7200.0:
        return f"{seconds / 60.0:.3g} min"
    return f"{seconds / 3600.0:.3g} h"


def _bytes(count: float) -> str:
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:,.3g} TB"
