"""What int8 gains in time on this CPU and costs in quality: the shipped networks, and a ResNet18 of
random weights for the time alone.

    python -m benchmarks.int8 --stamps 6000

Times: one thread, both networks in turns in one process, the median of the ratios. Quality: the
rule by which a member ships (`training.quantise.accept`), on stamps simulated anew; the ranges are
of other stamps, on hosts of the training side.
"""

from __future__ import annotations

import argparse
import json
import time
import warnings
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import onnx
import onnxruntime
import torch
from torch import Tensor, nn

from lenspipe.models.ensemble_file import describe_ensemble
from training.data import Examples, load_images
from training.export import OPSET, onnx_logits
from training.quantise import CALIBRATION_ROWS, METHODS, Method, accept, make_int8, quantise
from training.simulate.dataset import make_dataset, parse_recipe

BATCH = 64


class Block(nn.Module):
    """Two 3×3 convolutions and a short cut (He et al. 2016, arXiv:1512.03385)."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False),
            nn.BatchNorm2d(outputs),
            nn.ReLU(),
            nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False),
            nn.BatchNorm2d(outputs),
        )
        same = stride == 1 and inputs == outputs
        short = nn.Conv2d(inputs, outputs, 1, stride, bias=False)
        self.short = nn.Identity() if same else nn.Sequential(short, nn.BatchNorm2d(outputs))

    def forward(self, x: Tensor) -> Tensor:
        """Of the same form, by the stride smaller."""
        return torch.relu(self.body(x) + self.short(x))


def resnet18(bands: int) -> nn.Module:
    """ResNet18 with a 3×3 stem of stride 1, as for small images, and a logit."""
    layers: list[nn.Module] = [nn.Conv2d(bands, 64, 3, 1, 1, bias=False), nn.BatchNorm2d(64)]
    layers += [nn.ReLU()]
    for inputs, outputs, stride in ((64, 64, 1), (64, 128, 2), (128, 256, 2), (256, 512, 2)):
        layers += [Block(inputs, outputs, stride), Block(outputs, outputs, 1)]
    layers += [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(512, 1), nn.Flatten(0)]
    return nn.Sequential(*layers)


def write_resnet18(path: Path, size: int) -> None:
    """The network with random weights, input `image`."""
    torch.manual_seed(0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        program = torch.onnx.export(
            resnet18(3).eval(),
            (torch.zeros(2, 3, size, size),),
            input_names=["image"],
            output_names=["logit"],
            dynamic_shapes=({0: torch.export.Dim("batch")},),
            opset_version=OPSET,
            dynamo=True,
            verbose=False,
        )
    assert program is not None
    onnx.save(program.model_proto, str(path))


def compare_times(first: Path, second: Path, inputs: np.ndarray, rounds: int) -> dict[str, float]:
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
            session.run(None, {"image": inputs})
            turn[k] = 1e3 * (time.perf_counter() - began) / len(inputs)
    float32, int8 = np.median(taken[1:], axis=0)
    ratio = float(np.median(taken[1:, 0] / taken[1:, 1]))
    return {"float32_ms": float(float32), "int8_ms": float(int8), "times_as_fast": ratio}


def judge_member(
    source: Path, calibration: np.ndarray, test: Examples, methods: Sequence[Method], rounds: int
) -> dict[str, Any]:
    """Time and quality of one network by each method."""
    plain = onnx_logits(source, test.inputs, threads=1, batch_size=BATCH)
    found: dict[str, Any] = {}
    with TemporaryDirectory(prefix="lenspipe-int8-") as folder:
        for method in methods:
            path = Path(folder, f"{method}.onnx")
            make_int8(source, path, {"image": calibration}, method)
            scores = onnx_logits(path, test.inputs, threads=1, batch_size=BATCH)
            found[method] = {
                **compare_times(source, path, test.inputs[:BATCH], rounds),
                "logits_median": float(np.median(np.abs(scores - plain))),
                **accept(plain, scores, test.positive).as_dict(),
            }
    return found


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
        "--methods", nargs="+", choices=tuple(METHODS), default=["minmax", "percentile"]
    )
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--workers", type=int, default=1)
    options = parser.parse_args()
    with TemporaryDirectory(prefix="lenspipe-int8-") as name:
        folder = Path(name)
        calibration = simulated(folder, CALIBRATION_ROWS, 78, "training", options.workers).inputs
        test = simulated(folder, options.stamps, 77, "held_out", options.workers)
        found: dict[str, Any] = {
            member.name: judge_member(
                member.path, calibration, test, options.methods, options.rounds
            )
            for member in describe_ensemble(options.ensemble).members
        }
        network, int8 = folder / "resnet18.onnx", folder / "resnet18-int8.onnx"
        write_resnet18(network, calibration.shape[-1])
        onnx.save(quantise(network, {"image": calibration[:128]}), str(int8))
        times = compare_times(network, int8, calibration[:BATCH], options.rounds)
        found["resnet18 (random weights)"] = times
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
