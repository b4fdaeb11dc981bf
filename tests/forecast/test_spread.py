"""That intervals of 90% hold the truth as often, of samples as small and skewed as a plan's."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from jaxtyping import Float64

from lenspipe.forecast.spread import interval, none_found, ratio_draws


@pytest.mark.parametrize(
    ("items", "drawn", "least"),
    [
        (8, lambda rng, n: rng.normal(1.0, 0.15, n), 0.87),
        (8, lambda rng, n: rng.exponential(1.0, n), 0.85),
        (16, lambda rng, n: rng.lognormal(-0.125, 0.5, n), 0.85),
    ],
    ids=["8 of 15%", "8 skewed", "16 of 50%"],
)
def test_ninety_percent_of_samples_hold_the_truth(
    items: int, drawn: Callable[[np.random.Generator, int], Float64[np.ndarray, " n"]], least: float
) -> None:
    """Of 800, where chance moves the share by 0.011 (one standard deviation): 0.93 at most, and at
    least what bootstrap-t reaches of so few, less two of them; the mean is 1."""
    rng = np.random.default_rng(0)
    held = 0
    for _ in range(800):
        values = drawn(rng, items)
        mean = interval(values.mean(), ratio_draws(values, np.ones(items), rng))
        assert mean.low is not None
        assert mean.high is not None
        held += mean.low <= 1.0 <= mean.high
    assert least <= held / 800 <= 0.93


def test_a_sample_of_half_leaves_half_to_chance() -> None:
    """Of 400, where chance moves the share by 0.015; without the other half known it is 0.98."""
    rng = np.random.default_rng(0)
    population = rng.lognormal(3.0, 0.4, 80)
    held = 0
    for _ in range(400):
        drawn = rng.choice(population, 40, replace=False)
        mean = interval(drawn.mean(), ratio_draws(drawn, np.ones(40), rng, len(population)))
        assert mean.low is not None
        assert mean.high is not None
        held += mean.low <= population.mean() <= mean.high
    assert 0.86 <= held / 400 <= 0.94


def test_a_turn_that_drew_one_item_alone_has_no_error() -> None:
    lone = np.array([0.0] * 9 + [5.0])
    draws = ratio_draws(lone, np.ones(10), np.random.default_rng(0))
    assert np.isfinite(draws).all()
    found = interval(0.5, draws)
    assert found.high is not None
    assert 0.5 * 4.7 < found.high < 0.5 * 12  # of one event, Poisson's interval ends at 4.7


def test_a_sample_of_everything_leaves_nothing_to_chance() -> None:
    values = np.array([1.0, 2.0, 3.0])
    assert set(ratio_draws(values, np.ones(3), np.random.default_rng(0), 3)) == {1.0}


def test_of_none_found_the_rule_of_three_tells_how_many_there_may_be() -> None:
    """3 of n: where more than that share were so, 5% of samples at most would have shown none."""
    assert none_found(1000, 50_000).high == pytest.approx(150.0)
    assert 0.049 < (1.0 - 3.0 / 1000) ** 1000 < 0.05
    assert none_found(1, 2).high == 2.0
    assert none_found(1000, 0).high == 0.0
