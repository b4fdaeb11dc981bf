"""What other arithmetic costs in quality: members, score, AUROC and thresholds of the shipped
ensemble in half precision (float16 files), by OpenVINO, and by OpenVINO in bfloat16, against
float32 on the CPU, on stamps simulated anew.

    python -m benchmarks.precision --stamps 2000

OpenVINO is measured where ONNX Runtime has it (see docs/models.md).
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import onnxruntime

from benchmarks.gpu_throughput import half_ensemble
from lenspipe.contracts import ProviderName
from lenspipe.models.ensemble import EnsembleScores, load_ensemble
from lenspipe.models.providers import RUNTIME_NAMES
from training.data import load_images
from training.metrics import Curve
from training.simulate.dataset import parse_recipe
from training.simulate.sets import make_dataset

_OPENVINO: tuple[ProviderName, ...] = ("openvino", "openvino_bf16")


def arithmetics(ensemble: str, folder: Path) -> Iterator[tuple[str, str, ProviderName]]:
    """Name, ensemble and provider of each that can be had here."""
    yield "fp16", str(half_ensemble(ensemble, folder)), "cpu"
    for provider in _OPENVINO:
        if RUNTIME_NAMES[provider] in onnxruntime.get_available_providers():
            yield provider, ensemble, provider


def measure(ensemble: str, stamps: int, seed: int, workers: int) -> dict[str, Any]:
    """For each arithmetic: AUROC, the largest and the median change of the score, of each member's
    logit the largest, and how many stamps change sides of each threshold."""
    with TemporaryDirectory(prefix="lenspipe-precision-") as folder:
        path = Path(folder, "stamps.h5")
        recipe = {"instrument": "ps1", "n": stamps, "seed": seed, "hosts": "held_out"}
        make_dataset(parse_recipe(recipe), path, workers)
        examples = load_images(path)
        images = examples.inputs
        reference = load_ensemble(ensemble, provider="cpu")
        wanted = reference.score(images)
        found: dict[str, Any] = {
            "stamps": stamps,
            "seed": seed,
            "float32": {"auroc": Curve(wanted.score, examples.positive).auroc()},
        }
        for name, path_or_name, provider in arithmetics(ensemble, Path(folder, "half")):
            scored = load_ensemble(path_or_name, provider=provider).score(images)
            found[name] = {
                "auroc": Curve(scored.score, examples.positive).auroc(),
                **apart(scored, wanted, reference.member_names),
                "change_sides": {
                    f"fpr {threshold.fpr:g}": int(
                        ((scored.score > threshold.score) != (wanted.score > threshold.score)).sum()
                    )
                    for threshold in reference.description.spec.thresholds
                },
            }
    return found


def apart(scored: EnsembleScores, wanted: EnsembleScores, names: tuple[str, ...]) -> dict[str, Any]:
    """How far scores and logits lie from those that are wanted."""
    score = np.abs(scored.score - wanted.score)
    members = np.abs(scored.members - wanted.members).max(axis=0)
    return {
        "score_largest": float(score.max()),
        "score_median": float(np.median(score)),
        "members_largest": dict(zip(names, map(float, members), strict=True)),
    }


def main() -> None:
    """Print the measurement as one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--ensemble", default="ps1-gri", help="a name in the zoo or a path")
    parser.add_argument("--stamps", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=77)
    parser.add_argument("--workers", type=int, default=1)
    options = parser.parse_args()
    found = measure(options.ensemble, options.stamps, options.seed, options.workers)
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
