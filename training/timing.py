"""How long a network takes for an image, in ONNX Runtime on this machine's CPU."""

from __future__ import annotations

import platform
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from jaxtyping import Float64

from training.data import rows_of

IMAGES = 128
ROUNDS = 5


def seconds_in_turns(
    graphs: Mapping[str, Path],
    inputs: Mapping[str, np.ndarray],
    threads: int = 1,
    rounds: int = ROUNDS,
) -> dict[str, Float64[np.ndarray, " round"]]:
    """Seconds of each network for one batch of all rows, in each of `rounds` after one that does
    not count: in turns, so that what else the machine does falls on all alike."""
    calls = {name: _call(graph, inputs, threads) for name, graph in graphs.items()}
    taken = [{name: _timed(call) for name, call in calls.items()} for _ in range(rounds + 1)][1:]
    return {name: np.array([turn[name] for turn in taken]) for name in graphs}


def seconds_per_image(
    graphs: Mapping[str, Path],
    inputs: Mapping[str, np.ndarray],
    threads: int = 1,
    rounds: int = ROUNDS,
) -> dict[str, Any]:
    """Seconds for one image of all `graphs` together: the median of `rounds` on one batch.

    threads: of one operator. The machine is named beside it; a busy one takes longer."""
    batch = rows_of(inputs, slice(IMAGES))
    size = len(next(iter(batch.values())))
    seconds = np.sum(list(seconds_in_turns(graphs, batch, threads, rounds).values()), axis=0)
    return {
        "seconds": float(np.median(seconds)) / size,
        "range": [float(seconds.min()) / size, float(seconds.max()) / size],
        "images_per_second": size / float(np.median(seconds)),
        "threads": threads,
        "batch": size,
        "rounds": rounds,
        "machine": f"{_processor()}, ONNX Runtime {onnxruntime.__version__}, CPU",
    }


def _call(graph: Path, batch: Mapping[str, np.ndarray], threads: int) -> Callable[[], Any]:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(str(graph), options, providers=["CPUExecutionProvider"])
    feed = {t.name: np.ascontiguousarray(batch[t.name]) for t in session.get_inputs()}
    return lambda: session.run(["logit"], feed)


def _timed(call: Callable[[], Any]) -> float:
    began = time.perf_counter()
    call()
    return time.perf_counter() - began


def _processor() -> str:
    """The processor's name where the system tells it."""
    told = Path("/proc/cpuinfo")
    lines = told.read_text("utf-8").splitlines() if told.is_file() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()
