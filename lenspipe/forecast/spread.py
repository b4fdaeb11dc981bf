"""How far a sample's mean may be from that of all it was drawn from."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float64
from pydantic import BaseModel, ConfigDict

CONFIDENCE = 0.9
FEW = 8  # items, below which their spread does not tell how far their mean may be off
_TURNS = 2000
_FARTHEST = 10.0  # standard errors: of a turn that drew one item again and again


class Interval(BaseModel):
    """What is expected, and the ends of the interval of 90% by the spread of the sample; no ends
    where the sample is too small to tell (fewer than `FEW` items)."""

    model_config = ConfigDict(frozen=True)
    expected: float
    low: float | None = None
    high: float | None = None

    def scaled(self, factor: float) -> Interval:
        """All of it times `factor`, which is positive."""
        ends = [None if end is None else factor * end for end in (self.low, self.high)]
        return Interval(expected=factor * self.expected, low=ends[0], high=ends[1])

    def plus(self, seconds: float) -> Interval:
        """All of it and something that is known."""
        ends = [None if end is None else end + seconds for end in (self.low, self.high)]
        return Interval(expected=self.expected + seconds, low=ends[0], high=ends[1])


def ratio_draws(
    above: Float64[np.ndarray, " k"],
    below: Float64[np.ndarray, " k"],
    rng: np.random.Generator,
    population: int | None = None,
) -> Float64[np.ndarray, " turns"]:
    """What sum(above) / sum(below) may be in truth, over its own value: numbers about 1.

    Bootstrap-t: of few or skewed items a plain bootstrap is too narrow. population: from how many
    the sample was drawn without putting back; where that is all of them nothing is left to chance.
    None: what is drawn differs from time to time, as speeds do. Efron and Tibshirani 1993 (An
    Introduction to the Bootstrap, section 12.5); the finite population and a ratio's error:
    Cochran 1977 (Sampling Techniques, eq. 2.12 and chapter 6).
    """
    count = len(above)
    left = 1.0 if population is None else max(0.0, 1.0 - count / population)
    if count < 2 or not left or not above.sum() or not below.sum():
        return np.ones(_TURNS)
    picks = rng.integers(count, size=(_TURNS, count))
    whole, error = _ratio(above[None], below[None])
    ratios, errors = _ratio(above[picks], below[picks])
    away = (ratios - whole) / np.maximum(errors, 1e-12 * whole)
    scale = np.sqrt(left) * error / whole
    away = np.clip(away, -_FARTHEST, _FARTHEST)
    return np.asarray(np.maximum(0.0, 1.0 - scale * away), np.float64)


def _ratio(
    above: Float64[np.ndarray, "turns k"], below: Float64[np.ndarray, "turns k"]
) -> tuple[Float64[np.ndarray, " turns"], Float64[np.ndarray, " turns"]]:
    """The ratios of the sums, and their standard errors."""
    count = above.shape[1]
    sums = below.sum(axis=1)
    sums = np.where(sums > 0.0, sums, np.inf)
    ratios = above.sum(axis=1) / sums
    rest = above - ratios[:, None] * below
    return ratios, np.sqrt(count / (count - 1) * (rest**2).sum(axis=1)) / sums


def none_found(looked_at: int, left: int) -> Interval:
    """How many of `left` items are what none of the `looked_at` was: the rule of three, for items
    that are so independently of one another. Hanley and Lippman-Hand 1983 (JAMA 249, 1743)."""
    return Interval(expected=0.0, low=0.0, high=min(float(left), 3.0 * left / max(1, looked_at)))


def interval(
    expected: float, draws: Float64[np.ndarray, " turns"], enough: bool = True
) -> Interval:
    """The interval of a value whose relative draws these are. enough: whether they tell of it."""
    if not enough:
        return Interval(expected=expected)
    tail = (1.0 - CONFIDENCE) / 2.0
    low, high = expected * np.quantile(draws, (tail, 1.0 - tail))
    return Interval(
        expected=expected, low=min(float(low), expected), high=max(float(high), expected)
    )
