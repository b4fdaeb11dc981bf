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
# By what part of a row's size (median and norm of its samples) roundings of either fit may shift a
# residual. One that is this near the limit of rejection is left to astropy, and so is a row where
# the shift is more than a `CLOSE` part of the limit itself: equal samples, exact ramps.
DOUBT = 1e-12
CLOSE = 1e-4
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
    (value minus limit, clipped). As in astropy, the limit is subtracted in the images' type and the
    division is one of float64.
    """
    n, bands, height, width = images.shape
    flat = images.reshape(n * bands, height * width)
    low, _, span = _limits(flat, fit)
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
    low, high, _ = _limits(flat, fit)
    return low, high


def _limits(flat: Float[np.ndarray, "n pixel"], fit: Fit) -> Float64[np.ndarray, "3 n"]:
    """(low, high, high - low) of each row."""
    found = np.full((3, len(flat)), np.nan)
    doubtful = [np.empty(0, np.int64)]
    for rows, drawn in _samples(flat, fit.n_samples):
        found[:, rows], doubt = _limits_of(drawn, fit)
        doubtful.append(rows[doubt])
    for row in np.concatenate(doubtful):
        found[:, row] = _astropy_limits(flat[row], fit)
    return found


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
) -> tuple[Float64[np.ndarray, "3 n"], Bool[np.ndarray, " n"]]:
    """(low, high, high - low) of rows of sorted samples, and whether roundings decide. Between two
    samples the difference is rounded to their type, as it is where astropy takes both."""
    pixels, centre = drawn.shape[1], (drawn.shape[1] - 1) // 2
    median = _median(drawn).astype(np.float64)
    least, most = drawn[:, 0].astype(np.float64), drawn[:, -1].astype(np.float64)
    with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
        slope, good, doubt = _fit(drawn, median, fit)
        if fit.contrast > 0:
            slope = slope / fit.contrast
        fitted = good >= fit.least(pixels)
        low, high = median - (centre - 1) * slope, median + (pixels - centre) * slope
        above, below = fitted & (low > least), fitted & (high < most)
        low, high = np.where(above, low, least), np.where(below, high, most)
        whole = (drawn[:, -1] - drawn[:, 0]).astype(np.float64)
        span = np.where(above | below, high - low, whole)
    return np.stack([low, high, span]), doubt


def _median(drawn: Float[np.ndarray, "n sample"]) -> Float[np.ndarray, " n"]:
    """Median of sorted rows, rounded to their type as `numpy.median` rounds it."""
    middle = drawn.shape[1] // 2
    return np.asarray(np.mean(drawn[:, middle - 1 + drawn.shape[1] % 2 : middle + 1], axis=1))


def _fit(
    drawn: Float[np.ndarray, "n sample"], median: Float64[np.ndarray, " n"], fit: Fit
) -> tuple[Float64[np.ndarray, " n"], Int64[np.ndarray, " n"], Bool[np.ndarray, " n"]]:
    """Slope of the clipped line per row, how many samples are left, whether roundings decide.

    A row stops when the last turn rejected nothing or fewer than the least are left; what later
    turns make of it is not taken.
    """
    n, pixels = drawn.shape
    least = fit.least(pixels)
    clipping = _Clipping(drawn, median, fit.krej)
    good, slope = np.full(n, pixels, np.int64), np.zeros(n)
    doubt = np.zeros(n, bool)
    # The line through nothing but zeros is exact.
    active = (pixels >= least) & ((drawn[:, 0] != 0.0) | (drawn[:, -1] != 0.0))
    for _ in range(fit.max_iterations):
        if not active.any():
            break
        line, unsure, left = clipping.turn()
        slope = np.where(active, line, slope)
        doubt |= active & unsure
        before, good = good, np.where(active, left, good)
        active &= (good < before) & (good >= least) & ~unsure
    return slope, good, doubt


class _Clipping:
    """The samples of a block of rows while they are rejected, turn by turn."""

    def __init__(
        self, drawn: Float[np.ndarray, "n sample"], median: Float64[np.ndarray, " n"], krej: float
    ) -> None:
        n, pixels = drawn.shape
        x = np.arange(pixels) - 0.5 * (pixels - 1)
        self._powers = np.stack([np.ones(pixels), x, x * x], axis=1)
        # One piece of memory for all arrays: pages that are new cost more than sums in them.
        self._y, self._used, self._residual = np.empty((3, n, pixels))
        np.subtract(drawn, median[:, None], out=self._y)
        self._middle = np.abs(median)
        self._bad = np.zeros((n, pixels), bool)
        self._width = max(1, int(pixels * GROWTH))
        self._krej = krej

    def turn(
        self,
    ) -> tuple[Float64[np.ndarray, " n"], Bool[np.ndarray, " n"], Int64[np.ndarray, " n"]]:
        """A least-squares line through the samples that are left, and those off it rejected:
        (slope, whether roundings decide, how many are left)."""
        slope, threshold, margin = self._line()
        residual = np.abs(self._residual, out=self._residual)
        surely = residual > (threshold + margin)[:, None]
        perhaps = residual > (threshold - margin)[:, None]
        perhaps ^= surely
        unsure = perhaps.any(axis=1) | ~(margin <= CLOSE * threshold)
        self._bad = _grown(np.logical_or(surely, self._bad, out=surely), self._width)
        return slope, unsure, self._bad.shape[1] - np.count_nonzero(self._bad, axis=1)

    def _line(
        self,
    ) -> tuple[Float64[np.ndarray, " n"], Float64[np.ndarray, " n"], Float64[np.ndarray, " n"]]:
        """(slope, largest residual that stays, by how much roundings may shift a residual);
        residuals of all samples go to `_residual`. Sums are products of matrices, x about the
        middle of the row, y about the median."""
        used, residual, powers = self._used, self._residual, self._powers
        np.copyto(used, ~self._bad)
        count, sum_x, sum_xx = (used @ powers).T
        np.multiply(used, self._y, out=used)
        sum_y, sum_xy = (used @ powers[:, :2]).T
        sum_yy = np.einsum("ij,ij->i", used, self._y)
        covariance = sum_xy - sum_x * sum_y / count
        slope = covariance / (sum_xx - sum_x * sum_x / count)
        offset = (sum_y - slope * sum_x) / count
        np.matmul(np.stack([offset, slope], axis=1), powers[:, :2].T, out=residual)
        np.subtract(self._y, residual, out=residual)
        left = np.maximum(sum_yy - sum_y * sum_y / count - slope * covariance, 0.0)
        margin = DOUBT * (self._middle + np.sqrt(sum_yy))
        return slope, self._krej * np.sqrt(left / count), margin


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


def _astropy_limits(row: Float[np.ndarray, " pixel"], fit: Fit) -> tuple[float, float, float]:
    """(low, high, high - low) of one row."""
    from astropy.visualization import ZScaleInterval  # brings matplotlib along

    with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
        low, high = ZScaleInterval(**vars(fit)).get_limits(row)
        return float(low), float(high), float(high - low)
