"""How far a sample's mean may be from that of all it was drawn from."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float64
from pydantic import BaseModel, ConfigDict

CONFIDENCE = 0.9
_TURNS = 2000


class Interval(BaseModel):
    """What is expected, and the ends of the interval of 90% by the spread of the sample; no ends
    where the sample is too small to tell (one item)."""

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
    """Bootstrap of sum(above) / sum(below) over its own value: numbers about 1.

    population: from how many the sample was drawn without putting back; where that is all of them
    nothing is left to chance. None: what is drawn differs from time to time, as speeds do. Efron
    1979 (Annals of Statistics 7, 1); the finite population: Cochran 1977 (Sampling Techniques,
    eq. 2.12).
    """
    count = len(above)
    if not above.sum() or not below.sum():
        return np.ones(_TURNS)
    picks = rng.integers(count, size=(_TURNS, count))
    drawn = below[picks].sum(axis=1)
    whole = above.sum() / below.sum()
    ratios = above[picks].sum(axis=1) / np.where(drawn > 0, drawn, np.inf) / whole
    left = 1.0 if population is None else max(0.0, 1.0 - count / population)
    # Resampling k items varies as (k - 1) / k of what drawing them does.
    stretch = np.sqrt(left * count / (count - 1)) if count > 1 else 0.0
    return np.asarray(np.maximum(0.0, 1.0 + stretch * (ratios - 1.0)), np.float64)


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
