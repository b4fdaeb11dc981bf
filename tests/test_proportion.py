from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lenspipe.proportion import beta_cumulative, clopper_pearson

stats = pytest.importorskip("scipy.stats", reason="scipy comes with the training extra")


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_intervals_equal_scipys(data: st.DataObject) -> None:
    """scipy inverts the same function by other means; both hold about 1e-12 of it."""
    trials = data.draw(st.integers(1, 200_000))
    hits = data.draw(st.integers(0, trials))
    found = clopper_pearson(hits, trials)
    wanted = stats.binomtest(hits, trials).proportion_ci(method="exact")
    assert found == pytest.approx((wanted.low, wanted.high), rel=1e-7, abs=1e-14)


@settings(max_examples=40, deadline=None)
@given(st.floats(0.001, 0.999), st.integers(1, 5000), st.integers(1, 5000))
def test_the_cumulative_equals_scipys(x: float, a: int, b: int) -> None:
    assert beta_cumulative(x, a, b) == pytest.approx(stats.beta.cdf(x, a, b), rel=1e-8, abs=1e-12)


def test_nothing_tried_says_nothing() -> None:
    assert clopper_pearson(0, 0) == (0.0, 1.0)


@pytest.mark.parametrize(("hits", "trials"), [(3, 2), (-1, 5)])
def test_impossible_counts_are_refused(hits: int, trials: int) -> None:
    with pytest.raises(ValueError, match="hits <= trials"):
        clopper_pearson(hits, trials)
