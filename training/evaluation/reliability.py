"""Whether a calibrated probability is one: reliability diagram and expected calibration error."""

from __future__ import annotations

from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Float64, Int64

from lenspipe.proportion import clopper_pearson

BINS = 15
RESAMPLES = 300


def reliability(
    probability: Float[np.ndarray, " n"],
    positive: Bool[np.ndarray, " n"],
    bins: int = BINS,
    seed: int = 0,
) -> dict[str, Any]:
    """Bins of equal width that hold sources, and `ece` with what a perfect calibration would have.

    The expected calibration error is never 0 in a finite sample: `ece_if_calibrated` gives its mean
    and 95% range where lenses are drawn by the very probabilities.
    """
    values = probability.astype(np.float64)
    place = _place(values, bins)
    draw = np.random.default_rng(seed)
    resampled = [
        _ece(values[rows], positive[rows], place[rows], bins)
        for rows in (draw.integers(0, len(values), len(values)) for _ in range(RESAMPLES))
    ]
    perfect = [
        _ece(values, draw.random(len(values)) < values, place, bins) for _ in range(RESAMPLES)
    ]
    return {
        "ece": expected_calibration_error(values, positive, bins),
        "ece_interval": _range(resampled),
        "ece_if_calibrated": {"mean": float(np.mean(perfect)), "range": _range(perfect)},
        "prevalence": float(positive.mean()),
        "bins": [
            _bin(values[place == k], positive[place == k])
            for k in range(bins)
            if (place == k).any()
        ],
    }


def expected_calibration_error(
    probability: Float[np.ndarray, " n"], positive: Bool[np.ndarray, " n"], bins: int = BINS
) -> float:
    """Mean over the sources of |lenses' fraction - mean probability| of their bin.

    Naeini et al. 2015; Guo et al. 2017 (arXiv:1706.04599), equation 3.
    """
    values = probability.astype(np.float64)
    return _ece(values, positive, _place(values, bins), bins)


def _place(values: Float64[np.ndarray, " n"], bins: int) -> Int64[np.ndarray, " n"]:
    return np.minimum((values * bins).astype(np.int64), bins - 1)


def _ece(
    values: Float64[np.ndarray, " n"],
    positive: Bool[np.ndarray, " n"],
    place: Int64[np.ndarray, " n"],
    bins: int,
) -> float:
    gap = np.bincount(place, positive - values, minlength=bins)
    return float(np.abs(gap).sum() / len(values))


def _bin(values: Float64[np.ndarray, " n"], positive: Bool[np.ndarray, " n"]) -> dict[str, Any]:
    lenses = int(positive.sum())
    return {
        "mean_probability": float(values.mean()),
        "fraction_of_lenses": lenses / len(values),
        "interval": list(clopper_pearson(lenses, len(values))),
        "n": len(values),
    }


def _range(drawn: list[float]) -> list[float]:
    low, high = np.percentile(drawn, [2.5, 97.5])
    return [float(low), float(high)]
