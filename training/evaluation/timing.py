"""How long a network takes for an image, in ONNX Runtime on this machine's CPU."""

from __future__ import annotations

import platform
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from jaxtyping import Float

IMAGES = 128
ROUNDS = 5


def seconds_per_image(
    graphs: Sequence[Path],
    inputs: Float[np.ndarray, "n ..."],
    threads: int = 1,
    rounds: int = ROUNDS,
) -> dict[str, Any]:
    """Seconds for one image of all `graphs` together: the median of `rounds` on one batch, after
    one that does not count. `threads`: of one operator. The machine is named beside it; a busy one
    takes longer."""
    batch = np.ascontiguousarray(inputs[:IMAGES])
    calls = [_call(graph, batch, threads) for graph in graphs]
    seconds = [_timed(calls) for _ in range(rounds + 1)][1:]
    return {
        "seconds": float(np.median(seconds)) / len(batch),
        "range": [min(seconds) / len(batch), max(seconds) / len(batch)],
        "images_per_second": len(batch) / float(np.median(seconds)),
        "threads": threads,
        "batch": len(batch),
        "rounds": rounds,
        "machine": f"{_processor()}, ONNX Runtime {onnxruntime.__version__}, CPU",
    }


def _call(graph: Path, batch: Float[np.ndarray, "n ..."], threads: int) -> Callable[[], Any]:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(str(graph), options, providers=["CPUExecutionProvider"])
    feed = {session.get_inputs()[0].name: batch}
    return lambda: session.run(["logit"], feed)


def _timed(calls: Sequence[Callable[[], Any]]) -> float:
    began = time.perf_counter()
    for call in calls:
        call()
    return time.perf_counter() - began


def _processor() -> str:
    """The processor's name where the system tells it."""
    told = Path("/proc/cpuinfo")
    lines = told.read_text("utf-8").splitlines() if told.is_file() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()
