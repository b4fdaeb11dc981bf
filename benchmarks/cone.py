"""How long a cone search takes on a large catalogue, and what it reads.

Builds a HATS catalogue of random sources over the whole sky in --folder (once; 5 GB for 10⁸ rows)
and searches random cones in it: `python -m benchmarks.cone --rows 100000000`.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np

from benchmarks.random_catalogue import random_run
from lenspipe.catalogue.cone import Cone
from lenspipe.catalogue.published import Published

RADII_ARCSEC = (2.0, 60.0, 600.0)


def search(published: Published, radius_arcsec: float, cones: int, seed: int) -> None:
    """Print the time of random cones in one process, footers cold and warm."""
    rng = np.random.default_rng(seed)
    ra, z = rng.uniform(0, 360, cones), rng.uniform(-1, 1, cones)
    dec = np.degrees(np.arcsin(z))
    seconds, found = [], []
    for place in zip(ra.tolist(), dec.tolist(), strict=True):
        begun = time.perf_counter()
        found.append(published.cone(Cone(*place, radius_arcsec / 3600)).num_rows)
        seconds.append(time.perf_counter() - begun)
    told = np.percentile(seconds, [50, 90, 100]) * 1e3
    print(
        f'{radius_arcsec:g}": median {told[0]:.1f} ms, 90% {told[1]:.1f}, longest {told[2]:.1f}; '
        f"{np.mean(found):.2f} rows a cone, {cones} cones"
    )


def main() -> None:
    """Build what is not there, and search."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=10_000_000)
    parser.add_argument("--folder", type=Path, default=Path("runs/cone"))
    parser.add_argument("--cones", type=int, default=200)
    options = parser.parse_args()
    run = random_run(options.folder, options.rows)
    begun = time.perf_counter()
    published = Published(run)
    published.cone(Cone(10.0, 10.0, 1 / 3600))
    print(f"opening and the first cone: {1e3 * (time.perf_counter() - begun):.0f} ms")
    for seed, radius in enumerate(RADII_ARCSEC):
        search(published, radius, options.cones, seed)


if __name__ == "__main__":
    main()
