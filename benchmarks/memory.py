"""Peak memory of every process of a simulated run, stage by stage, as its rows grow.

    python -m benchmarks.memory --rows 100000 1000000 10000000

Every size runs in a process of its own; prints one JSON object per size: for each stage the seconds
it took, and the largest resident size (MiB) of the driver, of any worker, and of any worker without
what it shares with others (USS).
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory

import psutil

from benchmarks.simulated import publish_run, score_plan, select_catalogue
from lenspipe.bench.select import write_catalogue
from lenspipe.run.status import describe_status
from lenspipe.run.verify import verify
from lenspipe.run_directory import RunDirectory
from lenspipe.runtime import connect
from lenspipe.stages.planning import make_plan, read_plan

_MIB = 1 << 20
_INTERVAL_S = 0.1


def reset_peak() -> None:
    """Let the kernel forget the largest resident size of this process so far (Linux)."""
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")


def peak_rss_mb() -> float:
    """Largest resident size of this process since it began or `reset_peak` (MiB; Linux)."""
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    [line] = [line for line in lines if line.startswith("VmHWM:")]
    return int(line.split()[1]) / 1024


class Workers:
    """Samples the sizes of Ray's workers below this process while a block runs."""

    def __init__(self) -> None:
        self.rss = self.uss = 0.0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> Workers:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._stop.wait(_INTERVAL_S):
            for process in psutil.Process().children(recursive=True):
                with suppress(psutil.Error):  # it ended
                    if process.name().startswith("ray::_Host"):
                        found = process.memory_full_info()
                        self.rss = max(self.rss, found.rss / _MIB)
                        self.uss = max(self.uss, found.uss / _MIB)


def stage(work: Callable[[], object]) -> dict[str, float]:
    """What a call took."""
    reset_peak()
    began, cpu = time.perf_counter(), time.process_time()
    with Workers() as workers:
        work()
    return {
        "seconds": round(time.perf_counter() - began, 2),
        "driver_cpu_s": round(time.process_time() - cpu, 2),
        "driver_rss_mb": round(peak_rss_mb()),
        "worker_rss_mb": round(workers.rss),
        "worker_uss_mb": round(workers.uss),
    }


def measure(folder: Path, rows: int, shard_rows: int, workers: int) -> dict[str, object]:
    """A run of so many rows, all selected and all scored, and what reads it afterwards."""
    run = RunDirectory(str(folder / "run"))
    write_catalogue(folder / "catalogue.parquet", rows)
    found: dict[str, object] = {"rows": rows, "shard_rows": shard_rows}
    with connect(cpus=workers):
        found["select"] = stage(
            lambda: select_catalogue(run, folder / "catalogue.parquet", workers)
        )
        parts = run.part_names("select", run.commits("select"))
        found["plan"] = stage(lambda: make_plan(run, parts, shard_rows, workers))
        plan = read_plan(run)
        assert plan is not None
        found["score"] = stage(lambda: score_plan(run, plan, workers))
    found["publish"] = stage(lambda: publish_run(run))
    faults: list[str] = []
    found["verify"] = stage(lambda: faults.extend(verify(run)))
    found["status"] = stage(lambda: describe_status(run.url))
    return {**found, "shards": len(plan.shards), "faults": faults, "load": os.getloadavg()[0]}


def main() -> None:
    """Print one JSON object per size."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, nargs="+", default=[100_000, 1_000_000, 10_000_000])
    parser.add_argument("--shard-rows", type=int, default=8192)
    parser.add_argument("--workers", type=int, default=2)
    options = parser.parse_args()
    if len(options.rows) > 1:
        for rows in options.rows:
            arguments = [f"--rows={rows}", f"--shard-rows={options.shard_rows}"]
            command = [sys.executable, "-m", "benchmarks.memory", *arguments]
            subprocess.run([*command, f"--workers={options.workers}"], check=True)
        return
    with TemporaryDirectory(prefix="lenspipe-memory-") as folder:
        found = measure(Path(folder), options.rows[0], options.shard_rows, options.workers)
        print(json.dumps(found), flush=True)


if __name__ == "__main__":
    main()
