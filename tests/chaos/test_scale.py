"""Small versions of the benchmarks on scale: what one shard costs the driver, and that memory does
not grow with the rows."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(600)]  # other jobs may share the machine


def run_benchmark(name: str, *arguments: str) -> dict[str, object]:
    """A benchmark in a process of its own; the last object that it prints."""
    command = [sys.executable, "-m", f"benchmarks.{name}", *arguments]
    done = subprocess.run(
        command, check=False, cwd=ROOT, capture_output=True, text=True, timeout=280
    )
    assert done.returncode == 0, done.stderr[-2000:]
    found: dict[str, object] = json.loads(done.stdout.splitlines()[-1])
    return found


def number(value: object) -> float:
    assert isinstance(value, int | float)
    return float(value)


def test_a_tiny_shard_costs_the_driver_less_than_5_ms_of_processor_time(tmp_path: Path) -> None:
    found = run_benchmark("soak", "--shards", "300", "--folder", str(tmp_path))
    assert number(found["shards"]) >= 300
    assert number(found["driver_cpu_ms_per_shard"]) < 5.0
    assert found["faults"] == []
    # Commits of a second share a file.
    assert len(list((tmp_path / "run" / "shards").glob("score-*"))) < 100


def test_planning_needs_no_more_memory_for_eight_times_the_rows() -> None:
    """From a size on at which every buffer is full; 10-row shards, so that bounds count too."""
    few, many = (run_benchmark("planning", "--rows", str(rows)) for rows in (1_000_000, 4_000_000))
    assert number(many["shards"]) > 3.9 * number(few["shards"])
    assert number(many["peak_rss_mb"]) < 1.2 * number(few["peak_rss_mb"])
