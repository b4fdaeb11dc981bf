"""Interval of a proportion: Clopper and Pearson 1934 (Biometrika 26, 404), exact and conservative.

Its ends are quantiles of beta distributions, found here by bisection on the regularised incomplete
beta function, so that production needs no scipy.
"""

from __future__ import annotations

import math

_TINY = 1e-300
_TERMS = 20_000  # the fraction takes about sqrt(n) of them
_HALVINGS = 200  # far more than doubles have room for: bisection ends when nothing moves


def clopper_pearson(hits: int, trials: int, confidence: float = 0.95) -> tuple[float, float]:
    """Low and high end of the rate behind `hits` of `trials`; (0, 1) where nothing was tried."""
    if not 0 <= hits <= trials:
        raise ValueError(f"expected 0 <= hits <= trials, found {hits} of {trials}")
    tail = (1.0 - confidence) / 2.0
    low = 0.0 if hits == 0 else beta_quantile(tail, hits, trials - hits + 1)
    high = 1.0 if hits == trials else beta_quantile(1.0 - tail, hits + 1, trials - hits)
    return low, high


def beta_quantile(probability: float, a: float, b: float) -> float:
    """x at which `beta_cumulative(x, a, b)` is `probability`."""
    low, high = 0.0, 1.0
    for _ in range(_HALVINGS):
        middle = 0.5 * (low + high)
        if not low < middle < high:
            break
        if beta_cumulative(middle, a, b) < probability:
            low = middle
        else:
            high = middle
    return 0.5 * (low + high)


def beta_cumulative(x: float, a: float, b: float) -> float:
    """Regularised incomplete beta function I_x(a, b), a and b positive, x in 0..1."""
    if x <= 0.0 or x >= 1.0:
        return float(x >= 1.0)
    if x > (a + 1.0) / (a + b + 2.0):  # the fraction converges fast on the other side only
        return 1.0 - beta_cumulative(1.0 - x, b, a)
    logarithm = a * math.log(x) + b * math.log1p(-x)
    logarithm += math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b)
    return math.exp(logarithm) / (a * _fraction(x, a, b))


def _fraction(x: float, a: float, b: float) -> float:
    """1 + d1/(1 + d2/(1 + ...)) of DLMF 8.17.22 and 8.17.23, by Lentz's method."""
    value, c, d = 1.0, 1.0, 0.0
    for n in range(1, _TERMS):
        m = n // 2
        if n % 2:
            term = -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1))
        else:
            term = m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m))
        d = 1.0 / (_apart(1.0 + term * d))
        c = _apart(1.0 + term / c)
        value *= c * d
        if abs(c * d - 1.0) < 1e-15:
            return value
    raise ArithmeticError(f"I_x(a, b) at x={x}, a={a}, b={b}: the continued fraction goes on")


def _apart(value: float) -> float:
    """The value, kept off zero."""
    return value if abs(value) > _TINY else _TINY
