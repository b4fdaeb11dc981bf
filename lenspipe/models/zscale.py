"""IRAF's zscale for many images at once, equal to `astropy.visualization.ZScaleInterval`.

A line is fitted to the sorted pixels with rejection at 2.5 sigma; its slope over `contrast` sets
the limits about the median. astropy fits image by image; here the fit is in closed form over a
whole batch. Images that the batch cannot hold (pixels that are not finite, all pixels equal) go
through astropy one by one.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Float, Float64

MAX_REJECT = 0.5
MIN_PIXELS = 5
REJECT_SIGMA = 2.5
MAX_ITERATIONS = 5


def scale(
    images: Float[np.ndarray, "n band y x"], *, contrast: float = 0.25, samples: int = 1000
) -> Float[np.ndarray, "n band y x"]:
    """Each band of each image to 0–1 between its limits, clipped; NaN stays NaN.

    An image without one finite pixel comes back as NaN; one whose limits agree is not stretched
    (astropy: value minus limit, clipped).
    """
    n, bands, height, width = images.shape
    flat = images.reshape(n * bands, height * width)
    low, high = limits(flat, contrast=contrast, samples=samples)
    span = high - low
    shifted = flat - low[:, None].astype(flat.dtype)
    stretched = shifted / np.where(span != 0, span, 1.0)[:, None].astype(flat.dtype)
    return np.asarray(np.clip(stretched, 0.0, 1.0).reshape(images.shape), images.dtype)


def limits(
    flat: Float[np.ndarray, "n pixel"], *, contrast: float = 0.25, samples: int = 1000
) -> tuple[Float64[np.ndarray, " n"], Float64[np.ndarray, " n"]]:
    """(low, high) of each row of pixels; NaN where a row has no finite pixel."""
    low = np.full(len(flat), np.nan)
    high = np.full(len(flat), np.nan)
    finite = np.isfinite(flat)
    plain = finite.all(axis=1) & (np.ptp(np.where(finite, flat, 0.0), axis=1) > 0)
    if plain.any():
        low[plain], high[plain] = _limits_of_plain(flat[plain], contrast, samples)
    from astropy.visualization import ZScaleInterval  # brings matplotlib along

    interval = ZScaleInterval(n_samples=samples, contrast=contrast)
    for row in np.flatnonzero(~plain & finite.any(axis=1)):
        low[row], high[row] = interval.get_limits(flat[row])
    return low, high


def _limits_of_plain(
    flat: Float[np.ndarray, "n pixel"], contrast: float, samples: int
) -> tuple[Float64[np.ndarray, " n"], Float64[np.ndarray, " n"]]:
    stride = int(max(1.0, flat.shape[1] / samples))
    drawn = np.sort(flat[:, ::stride][:, :samples].astype(np.float64), axis=1)
    pixels = drawn.shape[1]
    least = max(MIN_PIXELS, int(pixels * MAX_REJECT))
    slope, good = _fit(drawn, least)
    if contrast > 0:
        slope = slope / contrast
    centre = (pixels - 1) // 2
    median = np.median(drawn, axis=1)
    low, high = drawn[:, 0], drawn[:, -1]
    fitted = good >= least
    low = np.where(fitted, np.maximum(low, median - (centre - 1) * slope), low)
    high = np.where(fitted, np.minimum(high, median + (pixels - centre) * slope), high)
    return low, high


def _fit(
    drawn: Float64[np.ndarray, "n pixel"], least: int
) -> tuple[Float64[np.ndarray, " n"], Float64[np.ndarray, " n"]]:
    """Slope of the clipped line per row, and how many pixels survived.

    A row stops when no pixel was rejected in the last turn or fewer than `least` are left.
    """
    n, pixels = drawn.shape
    bad = np.zeros((n, pixels), bool)
    good = np.full(n, pixels, np.float64)
    last = np.full(n, pixels + 1, np.float64)
    slope = np.zeros(n)
    for _ in range(MAX_ITERATIONS):
        rows = np.flatnonzero((good < last) & (good >= least))
        if not len(rows):
            break
        slope[rows], residual = _line(drawn[rows], ~bad[rows])
        spread = np.std(residual, axis=1, where=~bad[rows])
        rejected = bad[rows] | (np.abs(residual) > REJECT_SIGMA * spread[:, None])
        bad[rows] = _grown(rejected, max(1, int(pixels * 0.01)))
        last[rows] = good[rows]
        good[rows] = np.sum(~bad[rows], axis=1)
    return slope, good


def _line(
    drawn: Float64[np.ndarray, "n pixel"], used: Bool[np.ndarray, "n pixel"]
) -> tuple[Float64[np.ndarray, " n"], Float64[np.ndarray, "n pixel"]]:
    """Least squares line through the used pixels of each row: slope and all residuals."""
    x = np.arange(drawn.shape[1], dtype=np.float64)
    count = used.sum(axis=1)
    x_mean = (used @ x) / count
    y_mean = np.sum(drawn, axis=1, where=used) / count
    dx = x - x_mean[:, None]
    dy = drawn - y_mean[:, None]
    slope = np.sum(dx * dy, axis=1, where=used) / np.sum(dx * dx, axis=1, where=used)
    return slope, dy - slope[:, None] * dx


def _grown(bad: Bool[np.ndarray, "n pixel"], width: int) -> Bool[np.ndarray, "n pixel"]:
    """Dilation by `width` pixels, aligned as `numpy.convolve(..., mode="same")` aligns it."""
    pixels = bad.shape[1]
    total = np.cumsum(np.pad(bad, ((0, 0), (width, width))).astype(np.int64), axis=1)
    shift = (width - 1) // 2
    last = total[:, width + shift : width + shift + pixels]
    return last - total[:, shift : shift + pixels] > 0
