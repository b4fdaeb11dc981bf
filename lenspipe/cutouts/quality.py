"""The written rule for bad pixels, one for all readers; functions on one band of many stamps.

A pixel is bad where it is not finite, where the mask says so, or where it lies outside the image.
- More than `max_bad_fraction` of a band bad, or no pixel good: the row fails, BAD_PIXELS.
- All good pixels of a band equal: the row fails, CONSTANT_IMAGE (an empty or saturated frame).
- No pixel of a band finite, where other bands have some: the band is missing.
- Otherwise bad pixels become the median of the band's good pixels in that stamp, which is the sky
  for all but the largest galaxies; the row is flagged EDGE, MASKED, NAN_FILLED after the cause.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Float32, Int64


@dataclass(frozen=True)
class Verdict:
    """What was found in one band. bad_pixels, constant: rows that fail; fraction: the part of
    each of the `bad_pixels` rows that is bad."""

    bad_pixels: Int64[np.ndarray, " j"]
    fraction: Float32[np.ndarray, " j"]
    constant: Int64[np.ndarray, " k"]


@dataclass(frozen=True)
class Glance:
    """One look at every stamp of a band. bad: whether a pixel is not finite; constant: whether all
    pixels are finite and equal; largest: the largest |pixel| of each row."""

    bad: Bool[np.ndarray, " n"]
    constant: Bool[np.ndarray, " n"]
    largest: Float32[np.ndarray, " n"]


def look(pixels: Float32[np.ndarray, "n y x"]) -> Glance:
    """Two reductions, no copy: a NaN or an infinity anywhere shows in the minimum or maximum."""
    if not len(pixels):
        empty = np.empty(0, bool)
        return Glance(empty, empty, np.empty(0, np.float32))
    low, high = pixels.min(axis=(1, 2)), pixels.max(axis=(1, 2))
    largest = np.maximum(np.abs(low), np.abs(high))
    finite = np.isfinite(largest)
    return Glance(~finite, finite & (low == high), largest)


def repair(pixels: Float32[np.ndarray, "n y x"], max_bad_fraction: float) -> Verdict:
    """Fill pixels that are not finite, in place, and tell which rows cannot be used."""
    found = look(pixels)
    bad_rows, constant = np.flatnonzero(found.bad), np.flatnonzero(found.constant)
    if not len(bad_rows):
        return Verdict(bad_rows, np.empty(0, np.float32), constant)
    stamps = pixels[bad_rows]
    flat = stamps.reshape(len(stamps), -1)
    good = np.isfinite(flat)
    fraction = (~good).mean(axis=1)
    hopeless = (fraction > max_bad_fraction) | ~good.any(axis=1)
    middle, equal = _median_and_equality(flat, good)
    np.copyto(flat, middle[:, None], where=~good)
    pixels[bad_rows] = stamps
    return Verdict(
        bad_rows[hopeless],
        fraction[hopeless].astype(np.float32),
        np.concatenate([constant, bad_rows[equal & ~hopeless]]),
    )


def _median_and_equality(
    flat: Float32[np.ndarray, "k p"], good: Bool[np.ndarray, "k p"]
) -> tuple[Float32[np.ndarray, " k"], Bool[np.ndarray, " k"]]:
    """Median of each row's good values (0 where it has none), and whether they are all equal."""
    ordered = np.sort(np.where(good, flat, np.float32(np.nan)), axis=1)  # NaN goes last
    count = good.sum(axis=1)
    rows = np.arange(len(flat))
    last = np.maximum(count - 1, 0)
    low, high = ordered[rows, last // 2], ordered[rows, np.minimum(count // 2, last)]
    middle = np.where(count > 0, low + (high - low) / 2, np.float32(0.0)).astype(np.float32)
    return middle, np.asarray((count > 0) & (ordered[:, 0] == ordered[rows, last]))


def mask_rejects(
    mask: np.ndarray[Any, Any], bits: tuple[int, ...]
) -> np.ndarray[Any, np.dtype[np.bool_]]:
    """Where a mask image says "bad": any of these bits set, or any value but 0 without bits."""
    if not bits:
        return np.asarray(mask != 0)
    wanted = np.bitwise_or.reduce([np.uint64(1 << bit) for bit in bits])
    return np.asarray((_as_bits(mask) & wanted) != 0)


def _as_bits(mask: np.ndarray[Any, Any]) -> np.ndarray[Any, np.dtype[np.uint64]]:
    """Integers as 64 bits (two's complement), of floats the whole part; NaN has none."""
    if mask.dtype.kind != "f":
        return mask.astype(np.uint64)
    whole = np.nan_to_num(mask)
    with np.errstate(invalid="ignore"):  # each value is converted both ways, one of which holds it
        signed = whole.astype(np.int64).astype(np.uint64)
        return np.asarray(np.where(whole < 2.0**63, signed, whole.astype(np.uint64)))
