"""Score to probability, fitted on the calibration set and carried as plain numbers."""

from __future__ import annotations

from typing import Literal

import numpy as np
from jaxtyping import Bool, Float

from lenspipe.models.card import Calibration
from training.blend.logistic_fit import logistic_fit


def calibrate(
    kind: Literal["platt", "isotonic"],
    scores: Float[np.ndarray, " n"],
    positive: Bool[np.ndarray, " n"],
) -> Calibration:
    """Platt's logistic curve, or a monotone step-free curve through isotonic regression's corners.

    The probability holds at the set's own fraction of lenses, which the result states.
    """
    fraction = float(positive.mean())
    if kind == "isotonic":
        return _isotonic(scores, positive, fraction)
    weights, bias = logistic_fit(scores.astype(np.float64)[:, None], positive, 0.0, lowest=0.0)
    return Calibration(kind="platt", slope=float(weights[0]), intercept=bias, prevalence=fraction)


def _isotonic(
    scores: Float[np.ndarray, " n"], positive: Bool[np.ndarray, " n"], fraction: float
) -> Calibration:
    from sklearn.isotonic import IsotonicRegression

    curve = IsotonicRegression(out_of_bounds="clip")
    curve.fit(scores.astype(np.float64), positive.astype(np.float64))
    return Calibration(
        kind="isotonic",
        scores=tuple(float(x) for x in curve.X_thresholds_),
        probabilities=tuple(float(y) for y in curve.y_thresholds_),
        prevalence=fraction,
    )
