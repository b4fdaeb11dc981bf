from __future__ import annotations

import math

import pytest

from lenspipe.errors import InputError
from lenspipe.proportion import clopper_pearson
from training.evaluation.purity import Counts, expected_purity


def test_purity_is_bayes_rule() -> None:
    """TPR 0.5, FPR 0.001, one lens in 1000: 0.5 lenses for 0.999 others."""
    found = expected_purity(Counts(50, 100, 10, 10_000), 1e-3)
    assert found["purity"] == pytest.approx(0.5 / (0.5 + 0.999))
    assert found["false_positives_per_lens_found"] == pytest.approx(0.999 / 0.5)
    low, high = clopper_pearson(10, 10_000)
    wanted = [5e-4 / (5e-4 + 0.999 * end) for end in (high, low)]
    assert found["purity_interval"] == pytest.approx(wanted)
    assert found["purity_interval"][0] < found["purity"] < found["purity_interval"][1]


def test_at_equal_numbers_purity_is_the_sets_precision() -> None:
    found = expected_purity(Counts(80, 100, 20, 100), 0.5)
    assert found["purity"] == pytest.approx(0.8)
    assert found["false_positives_per_lens_found"] == pytest.approx(0.25)


def test_without_false_positives_the_interval_says_what_is_not_known() -> None:
    found = expected_purity(Counts(80, 100, 0, 1000), 1e-4)
    assert found["purity"] == 1.0
    assert found["purity_interval"][0] < 0.03


def test_without_a_lens_found_there_is_no_ratio() -> None:
    assert math.isnan(expected_purity(Counts(0, 10, 0, 10), 0.1)["purity"])
    assert math.isnan(expected_purity(Counts(0, 10, 5, 10), 0.1)["false_positives_per_lens_found"])


def test_a_prevalence_out_of_range_is_refused() -> None:
    with pytest.raises(InputError, match="prevalence: expected a fraction"):
        expected_purity(Counts(1, 1, 1, 1), 1.0)
