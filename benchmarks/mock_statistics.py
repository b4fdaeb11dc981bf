"""Simple statistics of simulated stamps without a lens against real ones of the training side.

    python -m benchmarks.mock_statistics --data ../shared/data --stamps 400

Real stamps: hosts, cut as training sets cut them. Simulated: red galaxies with their neighbours. Of
each stamp and band: rms of the pixels between sources and their median (flux), autocorrelation of
the noise at one pixel along a row, down a column and diagonally, pixels above 5 rms farther than 3
arcsec from the middle (neighbours, per cent), and the peak of the central source. Printed: median
over the stamps, 16th and 84th percentile, and mean.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator

import numpy as np

from training.simulate import real
from training.simulate.dataset import Generator, parse_recipe

OFFSETS = {"row": (0, 1), "column": (1, 0), "diagonal": (1, 1)}
_NEIGHBOUR_ARCSEC = 3.0


def stamps(data: str, count: int, neighbours: float, *, simulated: bool) -> Iterator[np.ndarray]:
    """Stamps (band, y, x) of red galaxies, simulated or real."""
    recipe = {
        "n": count,
        "seed": 31,
        "data": data,
        "lens_fraction": 0.0,
        "real_negative_fraction": 0.0 if simulated else 1.0,
        "negatives": {"early_type": 1.0},
        "defects": {},
        "neighbours": neighbours,
    }
    made = Generator.of(parse_recipe(recipe))
    for index in range(count):
        example = made.example(index)
        if example.kind in ("early_type", "real_galaxy"):
            yield example.image


def statistics(image: np.ndarray, pixel_scale_arcsec: float) -> dict[str, float]:
    """Of one band (y, x); the keys that the module names."""
    rms = float(real.sky_rms(image[None])[0])
    middle = float(np.median(image))
    quiet = np.abs(image - middle) < 2.5 * rms
    y, x = np.indices(image.shape) - image.shape[0] // 2
    outer = np.hypot(x, y) * pixel_scale_arcsec > _NEIGHBOUR_ARCSEC
    noise = np.where(quiet & outer, image - np.median(image[quiet & outer]), np.nan)
    found = {"rms": rms, "background": float(np.median(image[quiet & outer]))}
    for name, (dy, dx) in OFFSETS.items():
        pairs = noise[dy:, dx:] * noise[: noise.shape[0] - dy, : noise.shape[1] - dx]
        found[f"correlation_{name}"] = float(np.nanmean(pairs) / np.nanvar(noise))
    found["neighbours_percent"] = 100.0 * float((image[outer] > middle + 5 * rms).mean())
    found["peak"] = float(image[~outer].max())
    return found


def summary(images: Iterator[np.ndarray], bands: tuple[str, ...]) -> dict[str, dict[str, object]]:
    """Median, 16th and 84th percentile and mean of every statistic of every band."""
    rows = [[statistics(band, 0.25) for band in image] for image in images]
    found: dict[str, dict[str, object]] = {}
    for k, band in enumerate(bands):
        names = rows[0][k]
        values = {name: np.array([row[k][name] for row in rows]) for name in names}
        found[band] = {
            name: [round(float(np.nanpercentile(v, p)), 4) for p in (50, 16, 84)]
            + [round(float(np.nanmean(v)), 4)]
            for name, v in values.items()
        }
    return found


def main() -> None:
    """Print one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", default="../shared/data")
    parser.add_argument("--stamps", type=int, default=400)
    parser.add_argument("--neighbours", type=float, default=1.6)
    given = parser.parse_args()
    for name, simulated in (("real", False), ("simulated", True)):
        images = stamps(given.data, given.stamps, given.neighbours, simulated=simulated)
        print(json.dumps({name: summary(images, ("g", "r", "i"))}))


if __name__ == "__main__":
    main()
