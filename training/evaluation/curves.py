"""ROC on a logarithmic axis, and precision, recall, accuracy, F1 and F_beta against threshold."""

from __future__ import annotations

from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Float64

from training.metrics import Curve

# van Lohuizen (2022) weighs precision far above recall: a search's false positives cost a person's
# time, and there are 10^4 of them for a lens.
BETA = 0.17
POINTS = 400


def roc(curve: Curve, points: int = POINTS) -> dict[str, list[float]]:
    """`fpr` and `tpr` at the corners of the ROC curve, at most about `points` of them.

    For every number of false positives the most true ones; numbers are thinned evenly in their
    logarithm, so that no decade of FPR is lost.
    """
    true, false = curve.counts()
    last = np.append(np.flatnonzero(np.diff(false)), len(false) - 1)
    wanted = np.geomspace(1, max(curve.n_negatives, 1), points)
    kept = np.unique(np.append(0, np.searchsorted(false[last], wanted, side="right") - 1))
    chosen = last[np.append(kept, len(last) - 1) if kept[-1] != len(last) - 1 else kept]
    return {
        "fpr": (false[chosen] / curve.n_negatives).tolist(),
        "tpr": (true[chosen] / curve.n_positives).tolist(),
    }


def against_threshold(
    scores: Float[np.ndarray, " n"],
    positive: Bool[np.ndarray, " n"],
    points: int = POINTS,
    beta: float = BETA,
) -> dict[str, Any]:
    """Precision, recall, accuracy, F1 and F_beta of `score > threshold` at even thresholds.

    `prevalence`: of the set, on which precision and accuracy depend. Precision is NaN where nothing
    passes. `best_f_beta`: its largest value and the threshold that has it.
    """
    values = scores.astype(np.float64)
    thresholds = np.linspace(values.min(), values.max(), points)
    true = _above(values[positive], thresholds)
    false = _above(values[~positive], thresholds)
    lenses, others = int(positive.sum()), int((~positive).sum())
    with np.errstate(invalid="ignore"):
        precision = np.where(true + false > 0, true / (true + false), np.nan)
    recall = true / lenses
    scored = f_score(precision, recall, beta)
    best = int(np.nanargmax(scored))
    return {
        "beta": beta,
        "prevalence": lenses / (lenses + others),
        "threshold": thresholds.tolist(),
        "precision": precision.tolist(),
        "recall": recall.tolist(),
        "accuracy": ((true + others - false) / (lenses + others)).tolist(),
        "f1": f_score(precision, recall, 1.0).tolist(),
        "f_beta": scored.tolist(),
        "best_f_beta": {"value": float(scored[best]), "threshold": float(thresholds[best])},
    }


def f_score(
    precision: Float64[np.ndarray, " k"], recall: Float64[np.ndarray, " k"], beta: float
) -> Float64[np.ndarray, " k"]:
    """(1 + b²) P R / (b² P + R): van Rijsbergen 1979, as van Lohuizen (2022) uses it. 0 where
    nothing is right, NaN where the precision is."""
    below = beta**2 * precision + recall
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(below > 0, (1 + beta**2) * precision * recall / below, precision)


def _above(
    values: Float64[np.ndarray, " n"], thresholds: Float64[np.ndarray, " k"]
) -> Float64[np.ndarray, " k"]:
    """How many values are above each threshold."""
    return np.asarray(
        len(values) - np.searchsorted(np.sort(values), thresholds, side="right"), np.float64
    )
