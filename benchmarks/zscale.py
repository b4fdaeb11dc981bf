"""Batched ZScale against astropy's `ZScaleInterval` image by image, in turns in one process.

    python -m benchmarks.zscale --images 512 --rounds 5

Times are of the process's CPU, median of the rounds; every image's result is compared as well.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from astropy.visualization import ZScaleInterval

from benchmarks.bologna_files import draw
from lenspipe.models import zscale


def cpu_seconds(call: Callable[[], np.ndarray]) -> tuple[float, np.ndarray]:
    """(CPU seconds, result)."""
    began = time.process_time()
    found = call()
    return time.process_time() - began, found


def measure(images: int, rounds: int, batch: int) -> dict[str, Any]:
    """Microseconds per image of both, their ratio, and how many pixels differ."""
    pixels = draw(np.random.default_rng(0), images, masked=0.0)[:, None]
    interval = ZScaleInterval()
    starts = range(0, images, batch)

    def astropy() -> np.ndarray:
        return np.stack([interval(image[0]) for image in pixels])[:, None]

    def batched() -> np.ndarray:
        return np.concatenate([zscale.scale(pixels[start : start + batch]) for start in starts])

    batched()
    taken: list[tuple[float, float]] = []
    for _ in range(rounds):
        slow, wanted = cpu_seconds(astropy)
        fast, found = cpu_seconds(batched)
        taken.append((slow, fast))
    slow, fast = (1e6 * statistics.median(column) / images for column in zip(*taken, strict=True))
    return {
        "images": images,
        "batch": batch,
        "astropy_us": round(slow, 1),
        "batched_us": round(fast, 1),
        "ratio": round(statistics.median(a / b for a, b in taken), 2),
        "pixels_that_differ": int((wanted != found).sum()),
        "largest_difference": float(np.abs(wanted - found).max()),
    }


def main() -> None:
    """Print the measurement as one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=512)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--batch", type=int, default=64)
    options = parser.parse_args()
    print(json.dumps(measure(options.images, options.rounds, options.batch)))


if __name__ == "__main__":
    main()
