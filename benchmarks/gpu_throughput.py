"""Cutouts per second of an ensemble on a GPU and on the CPU, and whether they give the same logits.

Arrays in memory, no files: `bare` is the members' ONNX Runtime sessions one after the other on
numpy arrays, `ensemble` is `Ensemble.score` with its checks, device buffers, blend and calibration.
Says so where no GPU is there, and measures the CPU alone.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Callable
from statistics import median
from typing import Any

import numpy as np
import onnxruntime

from lenspipe.models.ensemble import Ensemble, load_ensemble
from lenspipe.models.providers import (
    RUNTIME_NAMES,
    ProviderName,
    ProviderOptions,
    cuda_devices,
    open_session,
)

Images = dict[str, np.ndarray]


def measure(
    name: str, rows: dict[str, int], batches: list[int], rounds: int, threads: int
) -> dict[str, Any]:
    """Rates by provider and batch size, and the largest differences of the GPU's logits."""
    missing = why_no_gpu()
    providers: list[ProviderName] = ["cpu"] if missing else ["cpu", "cuda"]
    found: dict[str, Any] = {
        "ensemble": name,
        "onnxruntime": onnxruntime.__version__,
        "cores": len(os.sched_getaffinity(0)),
        "threads": threads,
        "gpu": missing or "used",
        "cutouts_per_s": {},
    }
    for provider in providers:
        found["cutouts_per_s"][provider] = {
            batch: rates(name, provider, rows[provider], batch, rounds, threads)
            for batch in batches
        }
    if not missing:
        found["gpu_minus_cpu"] = {
            "tf32_off": differences(name, ProviderOptions()),
            "tf32_on": differences(name, ProviderOptions(tf32=True)),
        }
    return found


def why_no_gpu() -> str:
    """Why the GPU cannot be measured; empty where it can."""
    if RUNTIME_NAMES["cuda"] not in onnxruntime.get_available_providers():
        return f"none: onnxruntime {onnxruntime.__version__} was built without CUDA"
    return "" if cuda_devices() else "none: no CUDA device"


def rates(
    name: str, provider: ProviderName, rows: int, batch: int, rounds: int, threads: int
) -> dict[str, float]:
    """Cutouts per second, median over rounds after one that is not counted."""
    ensemble = load_ensemble(name, provider=provider, threads=threads, batch_size=batch)
    images = stamps(ensemble, rows)
    bare = bare_sessions(ensemble, provider, threads, batch)
    return {
        "bare": rows / seconds(lambda: bare(images), rounds),
        "ensemble": rows / seconds(lambda: ensemble.score(images), rounds),
    }


def bare_sessions(
    ensemble: Ensemble, provider: str, threads: int, batch: int
) -> Callable[[Images], None]:
    """A function that runs every member's session on every batch, and nothing else."""
    sessions = [
        open_session(m.path.read_bytes(), provider, threads, 0, ProviderOptions(), m.name)
        for m in ensemble.members
    ]
    key = ensemble.inputs[0].name

    def run(images: Images) -> None:
        for session in sessions:
            own = session.get_inputs()[0].name
            for start in range(0, len(images[key]), batch):
                session.run(None, {own: images[key][start : start + batch]})

    return run


def differences(name: str, options: ProviderOptions, rows: int = 4096) -> dict[str, float]:
    """Largest absolute difference of each member's logits and of the score."""
    cpu = load_ensemble(name, provider="cpu", threads=len(os.sched_getaffinity(0)))
    gpu = load_ensemble(name, provider="cuda", options=options)
    images = stamps(cpu, rows)
    wanted, found = cpu.score(images), gpu.score(images)
    apart = np.abs(wanted.members - found.members).max(axis=0)
    score = float(np.abs(wanted.score - found.score).max())
    return {**dict(zip(cpu.member_names, map(float, apart), strict=True)), "score": score}


def stamps(ensemble: Ensemble, rows: int) -> Images:
    """A round galaxy of random flux and size on noise, in every band."""
    draw = np.random.default_rng(0)
    made = {}
    for spec in ensemble.inputs:
        bands, size, _ = spec.shape
        y, x = np.mgrid[:size, :size] - (size - 1) / 2
        flux = draw.lognormal(0.0, 1.0, (rows, 1, 1)).astype(np.float32)
        width = draw.uniform(2.0, 6.0, (rows, 1, 1)).astype(np.float32)
        light = flux * np.exp(-np.hypot(x, y).astype(np.float32) / width)
        noise = draw.standard_normal((rows, bands, size, size), np.float32)
        made[spec.name] = light[:, None] + np.float32(0.1) * noise
    return made


def seconds(work: Callable[[], object], rounds: int) -> float:
    """Median of `rounds` timings after one that is thrown away."""
    times = []
    for _ in range(rounds + 1):
        began = time.perf_counter()
        work()
        times.append(time.perf_counter() - began)
    return median(times[1:])


def main() -> None:
    """Print the measurement as one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--ensemble", default="ps1-gri", help="a name in the zoo or a path")
    parser.add_argument("--batches", type=int, nargs="+", default=[64, 256, 1024])
    parser.add_argument("--cpu-rows", type=int, default=2048)
    parser.add_argument("--gpu-rows", type=int, default=32768)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    options = parser.parse_args()
    rows = {"cpu": options.cpu_rows, "cuda": options.gpu_rows}
    found = measure(options.ensemble, rows, options.batches, options.rounds, options.threads)
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
