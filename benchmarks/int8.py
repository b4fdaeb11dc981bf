"""What int8 gains in time on this CPU and costs in quality: the shipped networks, and a ResNet18 of
random weights for the time alone.

    python -m benchmarks.int8 --stamps 6000

Times: one thread, both networks in turns in one process, the median of the ratios. Methods for the
ranges are compared on stamps of their own, on hosts of the calibration side. What is quoted is
`--method` alone, by the rule by which a member ships (`training.quantise.accept`), on stamps that
had no part in that choice, on held-out hosts; the ranges are of others again, of the training side.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import onnx
import onnxruntime
import torch

from lenspipe.models.ensemble_file import describe_ensemble
from training import architectures
from training.data import Examples, load_images, rows_of
from training.export import export_graph, onnx_logits
from training.quantise import CALIBRATION_ROWS, METHODS, Method, accept, make_int8, quantise
from training.simulate.dataset import parse_recipe
from training.simulate.sets import make_dataset

BATCH = 64


def write_resnet18(path: Path, size: int) -> None:
    """The network with random weights, input `image`."""
    torch.manual_seed(0)
    network = architectures.build("resnet18", {}, {"image": (3, size, size)}).eval()
    export_graph(network, {"image": np.zeros((2, 3, size, size), np.float32)}, path)


def compare_times(
    first: Path, second: Path, inputs: Mapping[str, np.ndarray], rounds: int
) -> dict[str, float]:
    """Milliseconds per stamp of both on one thread, and the median of first over second."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    sessions = [
        onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        for path in (first, second)
    ]
    taken = np.empty((rounds + 1, 2))
    for turn in taken:
        for k, session in enumerate(sessions):
            began = time.perf_counter()
            session.run(None, dict(inputs))
            turn[k] = 1e3 * (time.perf_counter() - began) / BATCH
    float32, int8 = np.median(taken[1:], axis=0)
    ratio = float(np.median(taken[1:, 0] / taken[1:, 1]))
    return {"float32_ms": float(float32), "int8_ms": float(int8), "times_as_fast": ratio}


@dataclass(frozen=True)
class Stamps:
    """What ranges are made of, what methods are compared on, and what the chosen one is judged on;
    no host is in two of them."""

    ranges: Mapping[str, np.ndarray]
    comparison: Examples
    test: Examples


def judge_member(
    source: Path, stamps: Stamps, method: Method, methods: Sequence[Method], rounds: int
) -> dict[str, Any]:
    """Quality by each of `methods` on the stamps for comparison; time and quality by `method`."""
    with TemporaryDirectory(prefix="lenspipe-int8-") as folder:
        paths = {one: Path(folder, f"{one}.onnx") for one in {method, *methods}}
        for one, path in paths.items():
            make_int8(source, path, stamps.ranges, one)
        batch = rows_of(stamps.test.inputs, slice(BATCH))
        return {
            "compared": {one: quality(source, paths[one], stamps.comparison) for one in methods},
            "method": method,
            **compare_times(source, paths[method], batch, rounds),
            **quality(source, paths[method], stamps.test),
        }


def quality(source: Path, int8: Path, examples: Examples) -> dict[str, Any]:
    """How far logits move, and the rule's verdict."""
    plain, scores = (
        onnx_logits(path, examples.inputs, threads=1, batch_size=BATCH) for path in (source, int8)
    )
    moved = float(np.median(np.abs(scores - plain)))
    return {"logits_median": moved, **accept(plain, scores, examples.positive).as_dict()}


def simulated(folder: Path, stamps: int, seed: int, hosts: str, workers: int) -> Examples:
    """A set of simulated Pan-STARRS stamps."""
    path = folder / f"{hosts}.h5"
    recipe = {"instrument": "ps1", "n": stamps, "seed": seed, "hosts": hosts}
    make_dataset(parse_recipe({**recipe, "lens_fraction": 0.3}), path, workers)
    return load_images(path)


def main() -> None:
    """Print the measurement as one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--ensemble", default="ps1-gri", help="a name in the zoo or a path")
    parser.add_argument("--stamps", type=int, default=6000)
    parser.add_argument(
        "--methods", nargs="*", choices=tuple(METHODS), default=["minmax", "percentile"]
    )
    parser.add_argument("--method", choices=tuple(METHODS), default="percentile")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--workers", type=int, default=1)
    options = parser.parse_args()
    with TemporaryDirectory(prefix="lenspipe-int8-") as name:
        folder = Path(name)
        calibration = simulated(folder, CALIBRATION_ROWS, 78, "training", options.workers).inputs
        comparison = simulated(folder, options.stamps, 79, "calibration", options.workers)
        test = simulated(folder, options.stamps, 77, "held_out", options.workers)
        stamps = Stamps(calibration, comparison, test)
        found: dict[str, Any] = {
            member.name: judge_member(
                member.path, stamps, options.method, options.methods, options.rounds
            )
            for member in describe_ensemble(options.ensemble).members
        }
        network, int8 = folder / "resnet18.onnx", folder / "resnet18-int8.onnx"
        write_resnet18(network, calibration["image"].shape[-1])
        onnx.save(quantise(network, rows_of(calibration, slice(128))), str(int8))
        times = compare_times(network, int8, rows_of(calibration, slice(BATCH)), options.rounds)
        found["resnet18 (random weights)"] = times
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
