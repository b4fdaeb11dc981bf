"""Peak memory of every process of a simulated run, stage by stage, as its rows grow.

    python -m benchmarks.memory --rows 100000 1000000 10000000

Every size runs in a process of its own; prints one JSON object per size.
"""

from __future__ import annotations

from pathlib import Path


def reset_peak() -> None:
    """Let the kernel forget the largest resident size of this process so far (Linux)."""
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")


def peak_rss_mb(pid: int | str = "self") -> float:
    """Largest resident size of a process since it began or `reset_peak` (MiB; Linux)."""
    lines = Path(f"/proc/{pid}/status").read_text(encoding="ascii").splitlines()
    [line] = [line for line in lines if line.startswith("VmHWM:")]
    return int(line.split()[1]) / 1024
