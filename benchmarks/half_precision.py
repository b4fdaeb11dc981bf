"""What half precision costs in quality: logits and AUROC of the shipped ensemble and of its members
in float16, on stamps simulated anew.

    python -m benchmarks.half_precision --stamps 400
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from benchmarks.gpu_throughput import half_ensemble
from lenspipe.models.ensemble import load_ensemble
from training.data import load_images
from training.metrics import Curve
from training.simulate.dataset import make_dataset, parse_recipe


def measure(ensemble: str, stamps: int, seed: int, workers: int) -> dict[str, Any]:
    """AUROC by precision, and the largest difference of each member's logit and of the score."""
    with TemporaryDirectory(prefix="lenspipe-half-") as folder:
        path = Path(folder, "stamps.h5")
        recipe = {"instrument": "ps1", "n": stamps, "seed": seed, "hosts": "held_out"}
        make_dataset(parse_recipe(recipe), path, workers)
        examples = load_images(path)
        halves = half_ensemble(ensemble, Path(folder, "half"))
        found = {
            precision: load_ensemble(name, provider="cpu").score({"image": examples.inputs})
            for precision, name in (("fp32", ensemble), ("fp16", str(halves)))
        }
        names = load_ensemble(ensemble, provider="cpu").member_names
    apart = np.abs(found["fp32"].members - found["fp16"].members).max(axis=0)
    return {
        "stamps": stamps,
        "seed": seed,
        "auroc": {p: Curve(s.score, examples.positive).auroc() for p, s in found.items()},
        "largest_difference": {
            **dict(zip(names, map(float, apart), strict=True)),
            "score": float(np.abs(found["fp32"].score - found["fp16"].score).max()),
        },
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
