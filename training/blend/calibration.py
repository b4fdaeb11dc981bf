"""Score to probability, fitted on the calibration set and carried as plain numbers."""

from __future__ import annotations

from typing import Literal

import numpy as np
from jaxtyping import Bool, Float, Float64
from scipy.optimize import minimize_scalar

from lenspipe.errors import InputError
from lenspipe.models.card import Calibration
from training.blend.logistic_fit import logistic_fit

Kind = Literal["temperature", "platt", "isotonic"]
# Natural logarithm of the temperatures that are tried: 1/e⁵ to e⁵.
_LOG_TEMPERATURE = (-5.0, 5.0)
_AT_THE_END = 0.01


def calibrate(
    kind: Kind, scores: Float[np.ndarray, " n"], positive: Bool[np.ndarray, " n"]
) -> Calibration:
    """One curve of the kind asked for.

    `temperature`: the logit over one number (Guo et al. 2017, arXiv:1706.04599), which is Platt's
    curve without an intercept, for scores that are logits at the set's own fraction of lenses.
    `platt`: the logistic curve (Platt 1999). `isotonic`: a monotone curve, linear between the
    corners of an isotonic regression.

    The probability holds at the set's own fraction of lenses, which the result states. InputError
    where the scores do not rise with the fraction of lenses.
    """
    fraction, values = float(positive.mean()), scores.astype(np.float64)
    if kind == "isotonic":
        return _isotonic(values, positive, fraction)
    slope, intercept = (
        _slope(values, positive) if kind == "temperature" else _line(values, positive)
    )
    if not slope > 0.0:
        raise InputError("calibration", "scores that are higher for lenses", f"slope {slope:g}")
    return Calibration(kind="platt", slope=slope, intercept=intercept, prevalence=fraction)


def _line(
    scores: Float64[np.ndarray, " n"], positive: Bool[np.ndarray, " n"]
) -> tuple[float, float]:
    weights, bias = logistic_fit(scores[:, None], positive, 0.0, lowest=0.0)
    return float(weights[0]), bias


def _slope(
    scores: Float64[np.ndarray, " n"], positive: Bool[np.ndarray, " n"]
) -> tuple[float, float]:
    """1 / T of the least cross-entropy, and no intercept."""

    def cross_entropy(log_temperature: float) -> float:
        logits = scores * np.exp(-log_temperature)
        return float(np.mean(np.logaddexp(0.0, logits) - positive * logits))

    found = minimize_scalar(cross_entropy, bounds=_LOG_TEMPERATURE, method="bounded")
    # Scores that say nothing, or the contrary, are best at no slope at all.
    flat = found.x > _LOG_TEMPERATURE[1] - _AT_THE_END
    return 0.0 if flat else float(np.exp(-found.x)), 0.0


def _isotonic(
    scores: Float64[np.ndarray, " n"], positive: Bool[np.ndarray, " n"], fraction: float
) -> Calibration:
    from sklearn.isotonic import IsotonicRegression

    curve = IsotonicRegression(out_of_bounds="clip")
    fitted = curve.fit_transform(scores, positive.astype(np.float64))
    if fitted.min() == fitted.max():
        raise InputError("calibration", "scores that are higher for lenses", "a curve of one level")
    low, high = _supported(fitted)
    return Calibration(
        kind="isotonic",
        scores=tuple(float(x) for x in curve.X_thresholds_),
        probabilities=tuple(float(y) for y in np.clip(curve.y_thresholds_, low, high)),
        prevalence=fraction,
    )


def _supported(fitted: Float64[np.ndarray, " n"]) -> tuple[float, float]:
    """Least and largest probability that the set supports, by Laplace's rule of succession.

    n non-lenses without a lens below the curve's first corner do not make a lens impossible, but
    as rare as 1 in n + 2; the same at the upper end. A 0 or 1 would stay certain at any prevalence.
    """
    none, all_of = int((fitted <= 0.0).sum()), int((fitted >= 1.0).sum())
    low = 1.0 / (none + 2) if none else 0.0
    high = 1.0 - 1.0 / (all_of + 2) if all_of else 1.0
    # Where the next corner is nearer to the end than that, it is the corner that is supported.
    inner = fitted[(fitted > 0.0) & (fitted < 1.0)]
    if len(inner):
        low, high = min(low, float(inner.min())), max(high, float(inner.max()))
    return low, high
