"""How far graders agree beyond chance: Cohen's and Fleiss' kappa, with intervals.

1: they always agree; 0: as often as graders who draw by their own habits; NaN: not defined, as
where all gave one and the same grade to everything.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64, Int64

from lenspipe.serve.grades.votes import counts_of

RESAMPLES = 2000


@dataclass(frozen=True)
class Kappa:
    """low, high: 95% interval by bootstrap over objects; NaN where it is not defined. objects: how
    many it rests on."""

    value: float
    low: float
    high: float
    objects: int


def disagreement(
    values: Float64[np.ndarray, " k"], power: float = 1.0
) -> Float64[np.ndarray, "k k"]:
    """Weight of each pair of grades: the distance of their values to a power. 1 is linear, 2 is
    quadratic; 0 counts every difference alike."""
    apart = np.abs(values[:, None] - values[None, :])
    return np.where(apart > 0, apart**power, 0.0) if power else 1.0 - np.eye(len(values))


def cohen_kappa(
    first: Int64[np.ndarray, " n"],
    second: Int64[np.ndarray, " n"],
    weights: Float64[np.ndarray, "k k"],
    seed: int = 0,
) -> Kappa:
    """Agreement of two graders on the objects that both graded; negative codes are no grade.

    weights: how bad each pair of grades is, 0 on the diagonal (`disagreement`); one minus the
    identity is the plain kappa of Cohen 1960 (Educ. Psychol. Meas. 20, 37), others the weighted one
    of Cohen 1968 (Psychol. Bull. 70, 213).
    """
    k = len(weights)
    both = (first >= 0) & (second >= 0)
    cells = np.bincount(first[both] * k + second[both], minlength=k * k)
    return _resampled(lambda table: _cohen(table.reshape(-1, k, k), weights), cells, seed)


def fleiss_kappa(codes: Int64[np.ndarray, "n g"], k: int, seed: int = 0) -> Kappa:
    """Agreement of several graders; Fleiss 1971 (Psychol. Bull. 76, 378) where all graded all.

    Missing votes (negative codes): objects with fewer than two votes are left out. Each of the
    others counts once, whatever the number of its votes: by the fraction of its pairs of votes that
    agree, and by the fractions of its votes in each grade (as Gwet 2014, Handbook of Inter-Rater
    Reliability, section 2.3).
    """
    counts = counts_of(codes, k)
    kinds, times = np.unique(counts[counts.sum(axis=1) >= 2], axis=0, return_counts=True)
    votes = kinds.sum(axis=1, keepdims=True)
    agreeing = (kinds * (kinds - 1)).sum(axis=1) / (votes * (votes - 1))[:, 0]
    return _resampled(lambda drawn: _fleiss(drawn, agreeing, kinds / votes), times, seed)


def _cohen(
    tables: Float64[np.ndarray, "m k k"], weights: Float64[np.ndarray, "k k"]
) -> Float64[np.ndarray, " m"]:
    """One minus observed over expected disagreement."""
    n = tables.sum(axis=(1, 2))
    expected = tables.sum(axis=2)[:, :, None] * tables.sum(axis=1)[:, None, :]
    with np.errstate(invalid="ignore", divide="ignore"):
        seen = (tables * weights).sum(axis=(1, 2)) / n
        return np.asarray(1.0 - seen / ((expected * weights).sum(axis=(1, 2)) / n**2))


def _fleiss(
    times: Float64[np.ndarray, "m u"],
    agreeing: Float64[np.ndarray, " u"],
    fractions: Float64[np.ndarray, "u k"],
) -> Float64[np.ndarray, " m"]:
    """Kappa of objects of `u` kinds, each so many times."""
    n = times.sum(axis=1)
    with np.errstate(invalid="ignore", divide="ignore"):
        observed = times @ agreeing / n
        chance = ((times @ fractions / n[:, None]) ** 2).sum(axis=1)
        # By chance alone all agree: nothing is left to agree on.
        return np.where(chance < 1.0 - 1e-12, (observed - chance) / (1.0 - chance), np.nan)


def _resampled(
    statistic: Callable[[Float64[np.ndarray, "m u"]], Float64[np.ndarray, " m"]],
    times: Int64[np.ndarray, " u"],
    seed: int,
) -> Kappa:
    """A statistic of objects that are of a few kinds, and its percentile interval: to draw objects
    with replacement is to draw how often each kind comes."""
    n = int(times.sum())
    if not n:
        return Kappa(np.nan, np.nan, np.nan, 0)
    value = float(statistic(times[None].astype(float))[0])
    drawn = np.random.default_rng(seed).multinomial(n, times / n, RESAMPLES)
    found = statistic(drawn.astype(float))
    found = found[np.isfinite(found)]
    if not np.isfinite(value) or not len(found):
        return Kappa(value, np.nan, np.nan, n)
    low, high = np.quantile(found, [0.025, 0.975])
    return Kappa(value, float(low), float(high), n)
