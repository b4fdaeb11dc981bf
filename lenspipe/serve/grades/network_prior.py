"""What the network's probabilities are worth among the objects that people graded.

A network's probability holds at one prevalence of lenses and for sources like those that it was
calibrated on. Graded objects are others: candidates of a survey, of which perhaps one in forty is a
lens. So the probability π_i of a lens, before any vote, is found from the network's p_i by two
parameters that the votes tell:

    logit π_i = α + β (logit p_i - m),   m = median of logit p over the graded objects

α is the shift of prior odds (Saerens, Latinne & Decaestecker 2002, Neural Computation 14, 21, eq.
2.4): whatever prevalence p was given at only moves m, so that π is the same for all. β says how far
the network still tells lenses from others there: 1 as it was calibrated, 0 not at all (Platt 1999).
Priors: σ(α), the fraction of lenses at the median, is uniform; β is normal about 1.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float64

from lenspipe.models.calibrate import logistic

# No network is surer than this; else no vote could ever speak against it.
SUREST = 1e-6
SLOPE_SIGMA = 0.5
_FIT_TOLERANCE = 1e-10
_MOST_STEPS = 100
_LONGEST_STEP = 1.0


@dataclass(frozen=True)
class Shift:
    """alpha: log-odds of a lens at the median of the graded objects. beta: see above."""

    alpha: float = 0.0
    beta: float = 1.0

    @classmethod
    def at(cls, fraction: float) -> Shift:
        """Of a fraction of lenses at the median, in (0, 1), the network as it was calibrated."""
        return cls(math.log(fraction) - math.log1p(-fraction))

    def log_odds(self, x: Float64[np.ndarray, " n"]) -> Float64[np.ndarray, " n"]:
        """logit π at logit p - m = x."""
        return self.alpha + self.beta * x

    @property
    def log_prior(self) -> float:
        """Logarithm of the prior density of (alpha, beta), but for a constant."""
        of_slope = -0.5 * ((self.beta - 1.0) / SLOPE_SIGMA) ** 2
        return float(of_slope - np.logaddexp(0.0, self.alpha) - np.logaddexp(0.0, -self.alpha))


def centred_logits(
    network: Float64[np.ndarray, " n"], graded: Bool[np.ndarray, " n"]
) -> Float64[np.ndarray, " n"]:
    """logit p - m; 0 where p is not finite. Without graded objects m is 0: p then stays."""
    p = np.clip(np.where(np.isfinite(network), network, 0.5), SUREST, 1.0 - SUREST)
    x = np.log(p) - np.log1p(-p)
    middle = float(np.median(x[graded])) if graded.any() else 0.0
    return np.where(np.isfinite(network), x - middle, 0.0)


def fit(
    x: Float64[np.ndarray, " n"], q: Float64[np.ndarray, " n"], start: Shift = Shift()
) -> Shift:
    """The shift of largest posterior density where objects at x are lenses with probability q.

    A logistic regression whose priors are two objects at x = 0, one a lens and one none, and the
    normal one of beta: concave, so that Newton's steps find the one maximum.
    """
    at, target = np.append(x, 0.0), np.append(q, 0.5)
    weight = np.append(np.ones(len(x)), 2.0)
    alpha, beta = start.alpha, start.beta
    for _ in range(_MOST_STEPS):
        p = logistic(alpha + beta * at)
        rest, curve = weight * (target - p), weight * p * (1.0 - p)
        # Sums, since a dot product of BLAS waits for its threads where cores are busy.
        pull = np.array([rest.sum(), (rest * at).sum() - (beta - 1.0) / SLOPE_SIGMA**2])
        cross, square = (curve * at).sum(), (curve * at**2).sum() + 1.0 / SLOPE_SIGMA**2
        hessian = np.array([[curve.sum(), cross], [cross, square]])
        step = np.linalg.solve(hessian, pull)
        step *= min(1.0, _LONGEST_STEP / max(float(np.abs(step).max()), _FIT_TOLERANCE))
        alpha, beta = alpha + float(step[0]), beta + float(step[1])
        if np.abs(step).max() < _FIT_TOLERANCE:
            break
    return Shift(alpha, beta)
