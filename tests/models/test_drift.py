"""Score drift: the index is the textbook's, and small where nothing drifted."""

from __future__ import annotations

import math

import numpy as np
import pytest
from pydantic import ValidationError

from lenspipe.models.card import ScoreDistribution
from lenspipe.models.drift import (
    BINS,
    bin_names,
    count_scores,
    distribution_of,
    fractions,
    population_stability,
)

HALVES = ScoreDistribution(population="toy", edges=(0.0,), counts=(5000, 5000))


def normal(n: int, mean: float = 0.0, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(mean, 1.0, n).astype(np.float32)


def index(stated: ScoreDistribution, scores: np.ndarray) -> float:
    return population_stability(stated, count_scores(stated, scores))[0]


def test_the_index_is_that_of_the_definition() -> None:
    found, n = population_stability(HALVES, {"0.0": 7500, "+Inf": 2500})
    expected = 0.25 * math.log(0.75 / 0.5) - 0.25 * math.log(0.25 / 0.5)
    assert found == pytest.approx(expected, rel=1e-3)
    assert n == 10_000


def test_a_score_at_an_edge_lies_below_it() -> None:
    scores = np.array([-1.0, 0.0, np.nextafter(np.float32(0), np.float32(1))], np.float32)
    assert count_scores(HALVES, scores) == {"0.0": 2, "+Inf": 1}


def test_a_distribution_has_a_tenth_in_each_bin() -> None:
    found = distribution_of(normal(20_000), "toy")
    assert len(found.counts) == BINS
    assert sum(found.counts) == 20_000
    assert fractions(found.counts) == pytest.approx(np.full(BINS, 0.1), abs=1e-3)
    assert len(set(bin_names(found))) == BINS


def test_scores_that_are_equal_share_a_bin() -> None:
    """As those that a cascade stopped at its floor."""
    scores = np.concatenate([np.full(500, -1.5, np.float32), normal(500, 1.0)])
    found = distribution_of(scores, "toy")
    assert len(found.counts) < BINS
    assert sum(found.counts) == 1000
    assert index(found, scores) == pytest.approx(0.0, abs=1e-12)


def test_without_drift_the_index_is_what_chance_makes_it() -> None:
    stated = distribution_of(normal(5000), "toy")
    found = [index(stated, normal(2000, seed=k)) for k in range(1, 41)]
    expected = (BINS - 1) * (1 / 5000 + 1 / 2000)
    assert np.mean(found) == pytest.approx(expected, rel=0.3)


def test_scores_that_moved_are_seen() -> None:
    stated = distribution_of(normal(5000), "toy")
    assert index(stated, normal(5000, 0.2, 1)) < 0.1
    assert index(stated, normal(5000, 0.7, 1)) > 0.25


def test_an_empty_bin_is_no_infinite_drift() -> None:
    found, _ = population_stability(HALVES, {"0.0": 10_000})
    assert 1.0 < found < 10.0


def test_counts_for_another_distribution_are_left_out() -> None:
    assert population_stability(HALVES, {"0.0": 5, "+Inf": 5, "7.0": 1000})[1] == 10
    found, n = population_stability(HALVES, {"7.0": 1000})
    assert math.isnan(found)
    assert n == 0


def test_without_a_distribution_or_scores_nothing_is_counted() -> None:
    assert count_scores(None, normal(10)) == {}
    assert count_scores(HALVES, normal(0)) == {}


@pytest.mark.parametrize(
    "scores", [normal(9), np.zeros(100), np.array([np.nan] * 50), np.r_[normal(50), np.inf]]
)
def test_scores_that_make_no_distribution_are_refused(scores: np.ndarray) -> None:
    with pytest.raises(ValueError, match="expected"):
        distribution_of(scores, "toy")


@pytest.mark.parametrize(
    ("edges", "counts"), [((0.0, 0.0), (1, 1, 1)), ((0.0,), (1,)), ((0.0,), (0, 0)), ((), (1,))]
)
def test_distributions_that_are_none_are_refused(
    edges: tuple[float, ...], counts: tuple[int, ...]
) -> None:
    with pytest.raises(ValidationError):
        ScoreDistribution(population="toy", edges=edges, counts=counts)
