"""Score drift: how far a run's scores lie from those that the model's card states.

The population stability index of two histograms with the same bins, PSI = sum over bins of
(p - q) ln(p / q) (Siddiqi 2006, Credit Risk Scorecards, ch. 10). Where nothing drifted it is about
(1/n + 1/m) times a chi-squared variable of bins - 1 degrees of freedom, n and m being the numbers
of scores (Yurdakul & Naranjo 2020, Journal of Risk Model Validation 14, 4).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Float, Int64

from lenspipe.models.card import ScoreDistribution

BINS = 10
_DIGITS = 5  # of an edge: it is a label of metrics and of commit records
# Added to each count, so that an empty bin is no infinite drift.
_PRIOR = 0.5


def distribution_of(scores: Float[np.ndarray, " n"], population: str) -> ScoreDistribution:
    """How these scores lie, by their deciles; fewer bins where many scores are equal.

    ValueError where they are fewer than `BINS`, all equal, or not all finite.
    """
    if len(scores) < BINS or not np.isfinite(scores).all():
        raise ValueError(f"expected at least {BINS} scores, all finite")
    deciles = np.quantile(scores.astype(np.float64), np.arange(1, BINS) / BINS)
    edges = sorted({float(f"{decile:.{_DIGITS}g}") for decile in deciles})
    edges = [edge for edge in edges if scores.min() <= edge < scores.max()]
    if not edges:
        raise ValueError("expected scores that differ")
    counts = _histogram(scores, edges)
    return ScoreDistribution(
        population=population, edges=tuple(edges), counts=tuple(int(count) for count in counts)
    )


def bin_names(distribution: ScoreDistribution) -> list[str]:
    """Names of its bins: the highest score in each, as `le` of a histogram of Prometheus."""
    return [*(repr(edge) for edge in distribution.edges), "+Inf"]


def count_scores(
    distribution: ScoreDistribution | None, scores: Float[np.ndarray, " n"]
) -> dict[str, int]:
    """How many of the scores lie in each bin that has any; nothing without a distribution."""
    if distribution is None or not len(scores):
        return {}
    counts = _histogram(scores, distribution.edges)
    named = zip(bin_names(distribution), counts, strict=True)
    return {name: int(count) for name, count in named if count}


def fractions(counts: Sequence[int]) -> Float[np.ndarray, " bin"]:
    """Share of each bin, none of them 0."""
    smoothed = np.asarray(counts, np.float64) + _PRIOR
    return np.asarray(smoothed / smoothed.sum())


def population_stability(
    distribution: ScoreDistribution, counted: Mapping[str, int]
) -> tuple[float, int]:
    """PSI of counts by `bin_names` against the distribution, and how many scores they are.

    Other names are left out: they were counted for another distribution. NaN without any.
    """
    counts = [counted.get(name, 0) for name in bin_names(distribution)]
    if not sum(counts):
        return float("nan"), 0
    ours, stated = fractions(counts), fractions(distribution.counts)
    return float(np.sum((ours - stated) * np.log(ours / stated))), sum(counts)


def _histogram(
    scores: Float[np.ndarray, " n"], edges: Sequence[float]
) -> Int64[np.ndarray, " bin"]:
    found = np.searchsorted(np.asarray(edges), scores.astype(np.float64), side="left")
    return np.bincount(found, minlength=len(edges) + 1).astype(np.int64)
