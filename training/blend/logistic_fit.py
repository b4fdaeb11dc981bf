"""Logistic regression with bounds, which blenders and the calibration share."""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Float64
from scipy.optimize import minimize
from scipy.special import expit


def logistic_fit(
    inputs: Float64[np.ndarray, "n k"],
    positive: Bool[np.ndarray, " n"],
    ridge: float,
    lowest: float | None,
) -> tuple[Float64[np.ndarray, " k"], float]:
    """Weights (k,) and bias that minimise the mean cross-entropy + ridge · Σ (weight - 1/k)².

    lowest: bound on every weight.
    """
    n, k = inputs.shape
    label = positive.astype(np.float64)

    def objective(theta: Float64[np.ndarray, " k1"]) -> tuple[float, Float64[np.ndarray, " k1"]]:
        weights = theta[:k]
        logit = inputs @ weights + theta[k]
        spread = weights - 1.0 / k
        value = np.mean(np.logaddexp(0.0, logit) - label * logit) + ridge * np.sum(spread**2)
        error = (expit(logit) - label) / n
        slope = inputs.T @ error + 2.0 * ridge * spread
        return float(value), np.append(slope, error.sum())

    start = np.append(np.full(k, 1.0 / k), 0.0)
    bounds = [(lowest, None)] * k + [(None, None)]
    found = minimize(objective, start, jac=True, method="L-BFGS-B", bounds=bounds)
    return found.x[:k], float(found.x[k])
