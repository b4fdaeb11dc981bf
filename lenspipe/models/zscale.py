"""IRAF's zscale for many images at once, equal to `astropy.visualization.ZScaleInterval`.

A line is fitted to the sorted samples of an image, samples off the line are rejected, and the
slope over `contrast` sets the limits about the median. astropy fits image by image; here sums over
a whole batch give the same lines. What can differ is a sample so near the limit of rejection that
roundings decide, and a fit of which only roundings are left (equal samples, exact ramps): images
with such a sample go through astropy itself, one by one. So every image has astropy's rejections,
and its limits differ from astropy's by the roundings of one sum in float64.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Float64, Int64

# Rows of a block: its few arrays of samples in float64 stay in a core's second cache.
BLOCK = 32
# Largest difference, in units of a row's largest |sample about its median|, that the roundings of
# either fit make of a residual; a residual this near the limit of rejection is left to astropy.
DOUBT = 1e-9
GROWTH = 0.01  # part of the samples by which a rejection spreads


@dataclass(frozen=True)
class Fit:
    """Parameters of astropy's `ZScaleInterval`, under its names and with its defaults.

    contrast: of the limits, 0 for 1. n_samples: pixels taken. max_reject, min_npixels: where more
    is rejected or less is left, the limits are the samples' minimum and maximum. krej: standard
    deviations off the line at which a sample is rejected.
    """

    contrast: float = 0.25
    n_samples: int = 1000
    max_reject: float = 0.5
    min_npixels: int = 5
    krej: float = 2.5
    max_iterations: int = 5

    def least(self, pixels: int) -> int:
        """How many of `pixels` samples must be left."""
        return max(self.min_npixels, int(pixels * self.max_reject))


DEFAULT = Fit()


def scale(
    images: Float[np.ndarray, "n band y x"], fit: Fit = DEFAULT
) -> Float[np.ndarray, "n band y x"]:
    """Each band of each image to 0–1 between its limits, clipped; NaN stays NaN.

    An image without one finite pixel comes back as NaN; one whose limits agree is not stretched
    (astropy: value minus limit, clipped). Subtraction in the images' type, division in float64.
    """
    n, bands, height, width = images.shape
    flat = images.reshape(n * bands, height * width)
    low, high = limits(flat, fit)
    span = _span(low, high, flat.dtype)
    span[span == 0.0] = 1.0
    found = np.empty_like(flat)
    with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
        for start in range(0, len(flat), BLOCK):
            rows = slice(start, start + BLOCK)
            out = np.subtract(flat[rows], low[rows, None].astype(flat.dtype), out=found[rows])
            np.divide(out, span[rows, None], out=out, casting="same_kind")
            np.clip(out, 0.0, 1.0, out=out)
    return found.reshape(images.shape)


def limits(
    flat: Float[np.ndarray, "n pixel"], fit: Fit = DEFAULT
) -> tuple[Float64[np.ndarray, " n"], Float64[np.ndarray, " n"]]:
    """(low, high) of each row of pixels; NaN where a row has no finite pixel."""
    low = np.full(len(flat), np.nan)
    high = np.full(len(flat), np.nan)
    doubtful = [np.empty(0, np.int64)]
    for rows, drawn in _samples(flat, fit.n_samples):
        low[rows], high[rows], doubt = _limits_of(drawn, fit)
        doubtful.append(rows[doubt])
    for row in np.concatenate(doubtful):
        low[row], high[row] = _astropy_limits(flat[row], fit)
    return low, high


def _samples(
    flat: Float[np.ndarray, "n pixel"], n_samples: int
) -> Iterator[tuple[Int64[np.ndarray, " k"], Float[np.ndarray, "k sample"]]]:
    """Blocks of rows with their sorted samples, as many in each row: finite pixels at a stride."""
    # A minimum or maximum that is not finite tells of such a pixel at half the cost of a mask.
    with np.errstate(invalid="ignore"):
        whole = np.isfinite(flat.min(axis=1, initial=0.0) + flat.max(axis=1, initial=0.0))
    stride = max(1, int(flat.shape[1] / n_samples))
    rows = np.flatnonzero(whole)
    for start in range(0, len(rows) if flat.shape[1] else 0, BLOCK):
        block = rows[start : start + BLOCK]
        part = flat[block[0] : block[-1] + 1] if _adjacent(block) else flat[block]
        yield block, np.sort(part[:, ::stride][:, :n_samples], axis=1)
    holed: dict[int, list[tuple[int, Any]]] = {}
    for row in np.flatnonzero(~whole).tolist():
        finite = flat[row][np.isfinite(flat[row])]
        drawn = np.sort(finite[:: max(1, int(len(finite) / n_samples))][:n_samples])
        holed.setdefault(len(drawn), []).append((row, drawn))
    for length, found in holed.items():
        if length:
            yield np.array([row for row, _ in found]), np.stack([drawn for _, drawn in found])


def _adjacent(rows: Int64[np.ndarray, " k"]) -> bool:
    return int(rows[-1] - rows[0]) == len(rows) - 1


def _limits_of(
    drawn: Float[np.ndarray, "n sample"], fit: Fit
) -> tuple[Float64[np.ndarray, " n"], Float64[np.ndarray, " n"], Bool[np.ndarray, " n"]]:
    """(low, high, whether roundings decide) of rows of sorted samples."""
    pixels = drawn.shape[1]
    median = _median(drawn).astype(np.float64)
    low, high = drawn[:, 0].astype(np.float64), drawn[:, -1].astype(np.float64)
    with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
        slope, good, doubt = _fit(drawn, median, fit)
        if fit.contrast > 0:
            slope = slope / fit.contrast
        centre = (pixels - 1) // 2
        fitted = good >= fit.least(pixels)
        low = np.where(fitted, np.maximum(low, median - (centre - 1) * slope), low)
        high = np.where(fitted, np.minimum(high, median + (pixels - centre) * slope), high)
    return low, high, doubt


def _median(drawn: Float[np.ndarray, "n sample"]) -> Float[np.ndarray, " n"]:
    """Median of sorted rows, rounded to their type as `numpy.median` rounds it."""
    middle = drawn.shape[1] // 2
    return np.mean(drawn[:, middle - 1 + drawn.shape[1] % 2 : middle + 1], axis=1)


def _fit(
    drawn: Float[np.ndarray, "n sample"], median: Float64[np.ndarray, " n"], fit: Fit
) -> tuple[Float64[np.ndarray, " n"], Int64[np.ndarray, " n"], Bool[np.ndarray, " n"]]:
    """Slope of the clipped line per row, how many samples are left, whether roundings decide.

    A row stops when the last turn rejected nothing or fewer than the least are left.
    """
    n, pixels = drawn.shape
    least, width = fit.least(pixels), max(1, int(pixels * GROWTH))
    y = drawn - median[:, None]
    size = np.maximum(np.abs(y[:, 0]), np.abs(y[:, -1]))
    bad = np.zeros((n, pixels), bool)
    good = np.full(n, pixels, np.int64)
    slope, doubt = np.zeros(n), ~(size > 0.0) & (drawn[:, 0] != 0.0)
    rows = np.arange(n) if pixels >= least else np.empty(0, np.int64)
    for _ in range(fit.max_iterations):
        if not len(rows):
            break
        every = len(rows) == n
        part, old = (y, bad) if every else (y[rows], bad[rows])
        slope[rows], rejected, unsure = _turn(part, old, size[rows], fit.krej)
        rejected = _grown(rejected | old, width)
        left = pixels - np.count_nonzero(rejected, axis=1)
        bad[rows] = rejected
        doubt[rows] |= unsure
        changed = left < good[rows]
        good[rows] = left
        rows = rows[changed & (left >= least) & ~unsure]
    return slope, good, doubt


def _turn(
    y: Float64[np.ndarray, "n sample"],
    bad: Bool[np.ndarray, "n sample"],
    size: Float64[np.ndarray, " n"],
    krej: float,
) -> tuple[Float64[np.ndarray, " n"], Bool[np.ndarray, "n sample"], Bool[np.ndarray, " n"]]:
    """One least-squares line through the samples that are not bad: (slope, samples off the line,
    whether roundings decide). Sums by products of matrices, about the middle of the row."""
    pixels = y.shape[1]
    x = np.arange(pixels) - 0.5 * (pixels - 1)
    used = (~bad).astype(np.float64)
    count, sum_x, sum_xx = (used @ np.stack([np.ones(pixels), x, x * x], axis=1)).T
    np.multiply(used, y, out=used)
    sum_y, sum_xy = (used @ np.stack([np.ones(pixels), x], axis=1)).T
    slope = (sum_xy - sum_x * sum_y / count) / (sum_xx - sum_x * sum_x / count)
    offset = (sum_y - slope * sum_x) / count
    residual = np.multiply.outer(slope, x)
    residual += offset[:, None]
    np.subtract(y, residual, out=residual)
    np.abs(residual, out=residual)
    inside = np.multiply(residual, ~bad, out=used)
    threshold = krej * np.sqrt(np.einsum("ij,ij->i", inside, inside) / count)
    margin = DOUBT * size
    surely = residual > (threshold + margin)[:, None]
    perhaps = residual > (threshold - margin)[:, None]
    unsure = np.count_nonzero(surely, axis=1) != np.count_nonzero(perhaps, axis=1)
    return slope, surely, unsure & (size > 0.0)


def _grown(bad: Bool[np.ndarray, "n sample"], width: int) -> Bool[np.ndarray, "n sample"]:
    """Dilation by `width` samples, aligned as `numpy.convolve(..., mode="same")` aligns it."""
    before, pixels = width // 2, bad.shape[1]
    padded = np.zeros((len(bad), pixels + width - 1), bool)
    padded[:, before : before + pixels] = bad
    reach = 1
    while reach < width:  # what a position holds stands for `reach` positions from it on
        step = min(reach, width - reach)
        padded[:, : padded.shape[1] - step] |= padded[:, step:]
        reach += step
    return padded[:, :pixels]


def _span(
    low: Float64[np.ndarray, " n"], high: Float64[np.ndarray, " n"], kind: np.dtype[Any]
) -> Float64[np.ndarray, " n"]:
    """high - low; in the images' type where both limits are pixels, as astropy has it then."""
    own_low, own_high = low.astype(kind), high.astype(kind)
    with np.errstate(over="ignore", invalid="ignore"):
        pixels = (own_low == low) & (own_high == high)
        return np.where(pixels, (own_high - own_low).astype(np.float64), high - low)


def _astropy_limits(row: Float[np.ndarray, " pixel"], fit: Fit) -> tuple[float, float]:
    from astropy.visualization import ZScaleInterval  # brings matplotlib along

    interval = ZScaleInterval(**vars(fit))
    low, high = interval.get_limits(row)
    return float(low), float(high)
