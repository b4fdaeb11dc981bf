"""Memory of the process that selects does not grow with the catalogue."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from lenspipe.bench.select import write_catalogue

FILE_ROWS = 1_000_000
# Prints the most memory (KiB) that the process ever held.
SELECT = """
import resource, sys
from pathlib import Path
from lenspipe.bench.select import plan_for, run_in_process
plan, parts = plan_for(Path(sys.argv[1]), None)
assert sum(part.rows for part in parts) == int(sys.argv[3])
run_in_process(Path(sys.argv[2]), plan, parts)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


def _peak_mib(catalogue: Path, run: Path, rows: int) -> float:
    command = [sys.executable, "-c", SELECT, str(catalogue), str(run), str(rows)]
    found = subprocess.run(command, capture_output=True, text=True, check=True, timeout=500)
    return int(found.stdout) / 1024


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_peak_memory_is_flat_from_a_million_rows_to_twenty(tmp_path: Path) -> None:
    one, many = tmp_path / "one", tmp_path / "many"
    one.mkdir()
    many.mkdir()
    write_catalogue(one / "00.parquet", FILE_ROWS)
    for k in range(20):
        os.link(one / "00.parquet", many / f"{k:02d}.parquet")
    small = _peak_mib(one, tmp_path / "run-one", FILE_ROWS)
    large = _peak_mib(many, tmp_path / "run-many", 20 * FILE_ROWS)
    assert large < 1.15 * small, f"{small:.0f} MiB for 10⁶ rows, {large:.0f} MiB for 2×10⁷"
