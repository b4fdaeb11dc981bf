"""How long planning takes and how much memory it needs, as rows and shards grow.

    python -m benchmarks.planning --rows 100000 1000000 10000000 --shard-rows 10

Every size is planned in a process of its own; prints one JSON object per size.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory

from benchmarks.memory import peak_rss_mb, reset_peak
from benchmarks.simulated import write_selected
from lenspipe.run_directory import RunDirectory
from lenspipe.stages.planning import make_plan, read_plan


def measure(folder: Path, rows: int, shard_rows: int) -> dict[str, float]:
    """Plan so many rows in this process; what was there before is not counted in the peak."""
    run = RunDirectory(str(folder / "run"))
    parts = write_selected(run, rows)
    reset_peak()
    before = peak_rss_mb()
    wall, cpu = time.perf_counter(), time.process_time()
    plan = make_plan(run, parts, shard_rows, workers=2)
    cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
    reading = time.perf_counter()
    read_plan(run)
    return {
        "rows": rows,
        "shards": len(plan.shards),
        "seconds": wall,
        "cpu_seconds": cpu,
        "read_seconds": time.perf_counter() - reading,
        "rss_before_mb": before,
        "peak_rss_mb": peak_rss_mb(),
        "load": os.getloadavg()[0],
    }


def main() -> None:
    """Print one JSON object per size."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, nargs="+", default=[100_000, 1_000_000, 10_000_000])
    parser.add_argument("--shard-rows", type=int, default=10)
    options = parser.parse_args()
    if len(options.rows) > 1:
        for rows in options.rows:
            arguments = ["--rows", str(rows), "--shard-rows", str(options.shard_rows)]
            subprocess.run([sys.executable, "-m", "benchmarks.planning", *arguments], check=True)
        return
    with TemporaryDirectory(prefix="lenspipe-planning-") as folder:
        print(json.dumps(measure(Path(folder), options.rows[0], options.shard_rows)))


if __name__ == "__main__":
    main()
