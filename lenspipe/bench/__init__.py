"""Measurements behind `lenspipe bench`: each module has one `measure` function."""

from __future__ import annotations

import os
import platform
from typing import Any

import onnxruntime

from lenspipe.contracts import ProviderName
from lenspipe.models.providers import choose


def run_benches(
    rows: int,
    cutouts: int,
    rounds: int,
    ensemble: str = "ps1-gri",
    provider: ProviderName = "cpu",
) -> dict[str, Any]:
    """All measurements as `ratios`, `rates` and `machine`."""
    from lenspipe.bench import job, readers, select

    cores = len(os.sched_getaffinity(0))
    found = {
        **job.measure(ensemble, cutouts, rounds, provider=provider),
        **readers.measure(max(cutouts // 8, 8), rounds=rounds),
        **select.measure_both(rows, rounds, threads=cores),
    }
    ratios = {name: value for name, value in found.items() if "_vs_" in name}
    return {
        "ratios": ratios,
        "rates": {name: value for name, value in found.items() if name not in ratios},
        "machine": {
            "cores": cores,
            "processor": platform.processor() or platform.machine(),
            "provider": choose(provider),
            "providers": onnxruntime.get_available_providers(),
            "rows": rows,
            "cutouts": cutouts,
            "rounds": rounds,
        },
    }
