"""The recipes that the pages name, of few stamps with bright arcs and of nothing real."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

_SIMULATE = {
    "instrument": "ps1",
    "size_pixels": 48,
    "lens_fraction": 0.5,
    "brightness": {"distribution": "uniform", "of": "arc_snr", "low": 80, "high": 160},
}
_JUDGED = {"calibration": {"n": 64, "seed": 3}, "test": {"n": 32, "seed": 4}}
_CNN = {"kernels": [5, 3, 3], "widths": [8, 8, 8], "dense": [16, 8]}
_RECIPES: dict[str, dict[str, Any]] = {
    "ps1-resnet": {
        "task": "lens_finding",
        "splits": {"train": {"n": 64, "seed": 1}, "validation": {"n": 16, "seed": 2}, **_JUDGED},
        "architecture": {"name": "holismokes_cnn", "parameters": _CNN},
        "normalisation": {"name": "sqrt", "parameters": {"scale": [0.09, 0.11, 0.13]}},
        "optimiser": {"learning_rate": 0.01},
        "epochs": 12,
        "batch_size": 16,
        "seed": 22,
    },
    "ps1-gri": {"task": "ensemble", "splits": _JUDGED, "members": ["ps1-resnet"]},
}


def write_recipes(folder: Path) -> None:
    """`ps1-resnet`, and `ps1-gri` with it as the only member."""
    folder.mkdir(parents=True)
    for name, own in _RECIPES.items():
        common = {"name": name, "description": "of the tests", "simulate": _SIMULATE, "fprs": [0.1]}
        (folder / f"{name}.yaml").write_text(yaml.safe_dump({**common, **own}), "utf-8")
