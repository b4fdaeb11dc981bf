"""Toy sets of stamps in the layout that the simulation writes: a ring or no ring."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch

MakeSet = Callable[[Path, int, int], Path]


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Sums in the same order everywhere, and no more than one of the machine's cores."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def make_set() -> MakeSet:
    """(path, seed, n) -> an HDF5 set of 16×16 stamps in g r."""
    return _make_set


def _make_set(path: Path, seed: int, n: int) -> Path:
    draw = np.random.default_rng(seed)
    labels = (np.arange(n) % 2).astype(np.uint8)
    y, x = np.mgrid[:16, :16] - 7.5
    radius = draw.uniform(4.0, 6.0, n)
    images = draw.normal(0.0, 1.0, (n, 2, 16, 16)) + 20.0 * np.exp(-(x**2 + y**2) / 4.0)
    rings = np.exp(-((np.hypot(x, y) - radius[:, None, None]) ** 2))
    images += 4.0 * (labels[:, None, None] * rings)[:, None]
    kinds = np.where(labels == 1, "lens", np.where(np.arange(n) % 4 == 0, "spiral", "star"))
    with h5py.File(path, "w") as file:
        file["images"] = images.astype(np.float32)
        file["label"] = labels
        file.create_dataset("kind", data=kinds.tolist(), dtype=h5py.string_dtype())
        hosts = [f"host-{seed}" if k % 8 == 0 else "" for k in range(n)]
        file.create_dataset("host", data=hosts, dtype=h5py.string_dtype())
        sources = [f"source-{k % 7}" if labels[k] else "" for k in range(n)]
        file.create_dataset("source", data=sources, dtype=h5py.string_dtype())
        file["truth/theta_e_arcsec"] = np.where(labels == 1, 0.25 * radius, np.nan)
        file.attrs["bands"] = ["g", "r"]
        file.attrs["pixel_scale_arcsec"] = 0.25
        file.attrs["zero_point_mag"] = 25.0
    return path


@pytest.fixture
def recipe_content() -> dict[str, Any]:
    """A member's recipe that trains in a second."""
    return {
        "name": "toy",
        "task": "lens_finding",
        "description": "finds rings",
        "simulate": {"instrument": "toy"},
        "splits": {
            "train": {"n": 256, "seed": 1},
            "validation": {"n": 128, "seed": 2},
            "calibration": {"n": 400, "seed": 3},
            "test": {"n": 400, "seed": 4},
        },
        "architecture": {
            "name": "holismokes_cnn",
            "parameters": {"kernels": [5, 3, 3], "widths": [4, 8, 8], "dense": [16, 8]},
        },
        "normalisation": {"name": "asinh", "parameters": {"softening": [1.0]}},
        "augmentation": {"shift_pixels": 1, "noise": 0.2, "brightness_mag": 0.1},
        "optimiser": {"learning_rate": 0.01},
        "epochs": 4,
        "batch_size": 32,
        "ema_decay": 0.9,
        "fprs": [0.05],
        "seed": 5,
    }
