"""Where sources stand: on the tiles without two on one spot, and around the tiles."""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Float64
from scipy.spatial import cKDTree

from training.simulate.tiles import Mosaic

# Closer pairs would be one row of a ground-based catalogue.
MIN_SEPARATION_ARCSEC = 2.0
# Sources keep this far inside the mosaic, so that the catalogue's centre has pixels.
BORDER_PIXELS = 2.0


def _first_of_close_pairs(
    positions: Float64[np.ndarray, "n 2"], radius: float
) -> Bool[np.ndarray, " n"]:
    """False for each that has an earlier neighbour within `radius`."""
    pairs = cKDTree(positions).query_pairs(radius, output_type="ndarray")
    kept = np.ones(len(positions), dtype=bool)
    kept[pairs.max(axis=1)] = False
    return kept


def scatter(
    rng: np.random.Generator, mosaic: Mosaic, count: int
) -> tuple[Float64[np.ndarray, " n"], Float64[np.ndarray, " n"]]:
    """`count` positions (x, y) in mosaic pixels, uniform but for a least separation."""
    height, width = mosaic.shape
    low = BORDER_PIXELS
    high = np.array([width, height]) - 1 - BORDER_PIXELS
    kept = np.empty((0, 2))
    while len(kept) < count:
        more = rng.uniform(low, high, size=(count, 2))
        kept = np.concatenate([kept, more])
        kept = kept[_first_of_close_pairs(kept, MIN_SEPARATION_ARCSEC / mosaic.pixel_scale_arcsec)]
    return kept[:count, 0], kept[:count, 1]


def around(
    rng: np.random.Generator, mosaic: Mosaic, count: int, density: float
) -> tuple[Float64[np.ndarray, " n"], Float64[np.ndarray, " n"]]:
    """(ra, dec) of `count` sources outside of the mosaic, at `density` per square pixel.

    They fill a rectangle about the mosaic's centre, less the mosaic itself.
    """
    height, width = mosaic.shape
    side = np.sqrt(count / density + height * width)
    x, y = np.empty(0), np.empty(0)
    while len(x) < count:
        more = rng.uniform(-side / 2, side / 2, size=(2, 2 * count))
        outside = (np.abs(more[0]) > width / 2 + 1) | (np.abs(more[1]) > height / 2 + 1)
        x, y = np.append(x, more[0, outside]), np.append(y, more[1, outside])
    return mosaic.sky(x[:count] + (width - 1) / 2, y[:count] + (height - 1) / 2)
