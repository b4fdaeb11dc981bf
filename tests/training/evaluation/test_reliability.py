from __future__ import annotations

import numpy as np
import pytest

from training.evaluation.reliability import expected_calibration_error, reliability


def test_a_perfect_calibration_lies_within_its_own_bounds() -> None:
    draw = np.random.default_rng(1)
    inside = 0
    for _ in range(10):
        probability = draw.beta(0.5, 1.0, 2000)
        found = reliability(probability, draw.random(2000) < probability)
        low, high = found["ece_if_calibrated"]["range"]
        inside += low <= found["ece"] <= high
    assert inside >= 7  # of 10 at 95%, 7 or fewer come up once in 87


def test_overconfidence_is_measured() -> None:
    """Said 0.9, true 0.6: ECE 0.3 whatever the bins; said 0.9 and 0.1, true 0.5 and 0.5: 0.4."""
    lenses = np.arange(1000) % 10 < 6
    assert expected_calibration_error(np.full(1000, 0.9), lenses) == pytest.approx(0.3)
    said = np.where(np.arange(1000) < 500, 0.9, 0.1)
    assert expected_calibration_error(said, np.arange(1000) % 2 == 0) == pytest.approx(0.4)
    found = reliability(np.full(1000, 0.9), lenses)
    assert found["ece"] > found["ece_if_calibrated"]["range"][1]
    assert [b["n"] for b in found["bins"]] == [1000]


def test_bins_hold_every_source_once_and_probability_one_has_a_place() -> None:
    probability = np.linspace(0.0, 1.0, 501)
    found = reliability(probability, probability > 0.5, bins=10)
    assert sum(b["n"] for b in found["bins"]) == 501
    assert len(found["bins"]) == 10
    assert found["bins"][-1]["fraction_of_lenses"] == 1.0
