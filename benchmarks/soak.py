"""A soak: many tiny shards through stage `score`, and what each costs the driver.

    python -m benchmarks.soak --shards 100000

Prints one JSON object: CPU and wall time of the driver per shard, what a resume of the finished
stage takes, and what `verify` finds.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import time
from pathlib import Path
from tempfile import TemporaryDirectory

from benchmarks.simulated import score_plan, write_selected
from lenspipe.run.verify import verify
from lenspipe.run_directory import RunDirectory
from lenspipe.runtime import connect
from lenspipe.stages.planning import make_plan


def measure(folder: Path, shards: int, shard_rows: int = 10, workers: int = 2) -> dict[str, object]:
    """Plan, score, resume and verify a run of so many shards in `folder`."""
    run = RunDirectory(str(folder))
    parts = write_selected(run, shards * shard_rows)
    plan = make_plan(run, parts, shard_rows, workers)
    with connect(cpus=workers):
        wall, cpu = time.perf_counter(), time.process_time()
        score_plan(run, plan, workers)
        cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
        resumed = time.perf_counter()
        score_plan(run, plan, workers)
        resumed = time.perf_counter() - resumed
    checked = time.perf_counter()
    faults = verify(run)
    return {
        "shards": len(plan.shards),
        "driver_cpu_ms_per_shard": 1e3 * cpu / len(plan.shards),
        "wall_ms_per_shard": 1e3 * wall / len(plan.shards),
        "resume_s": resumed,
        "verify_s": time.perf_counter() - checked,
        "faults": faults,
        "driver_peak_rss_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        "load": os.getloadavg()[0],
    }


def main() -> None:
    """Print the measurement as one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shards", type=int, default=100_000)
    parser.add_argument("--shard-rows", type=int, default=10)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--folder", help="where the run goes; it is kept")
    options = parser.parse_args()
    with TemporaryDirectory(prefix="lenspipe-soak-") as scratch:
        folder = Path(options.folder or scratch, "run")
        print(json.dumps(measure(folder, options.shards, options.shard_rows, options.workers)))


if __name__ == "__main__":
    main()
