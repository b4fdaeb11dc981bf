"""Overlap of false positives: by hand, and at its two ends."""

from __future__ import annotations

import json

import numpy as np
import pytest

from lenspipe.errors import InputError
from training.blend.diversity import diversity


def sample(alike: float, n: int = 20_000, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Two members whose errors have the correlation `alike`; a fifth are lenses."""
    draw = np.random.default_rng(seed)
    positive = np.arange(n) % 5 == 0
    shared, own = draw.normal(size=(n, 1)), draw.normal(size=(n, 2))
    errors = np.sqrt(alike) * shared + np.sqrt(1.0 - alike) * own
    return 3.0 * positive[:, None] + errors, positive


def test_by_hand() -> None:
    """100 non-lenses at FPR 0.05: five false positives each, two of them shared."""
    logits = np.zeros((110, 2))
    logits[:, 0] = logits[:, 1] = np.linspace(-2.0, -1.0, 110)
    positive = np.arange(110) >= 100
    logits[positive] = 9.0
    logits[:5, 0], logits[3:8, 1] = 1.0, 1.0
    found = diversity(logits, positive, ("a", "b"), 0.05)
    assert found["n_negatives"] == 100
    assert found["false_positives"] == {"a": 5, "b": 5}
    assert found["shared_by"] == {"1": 6, "2": 2}
    pair = found["pairs"][0]
    assert (pair["members"], pair["both"]) == (["a", "b"], 2)
    assert pair["jaccard"] == pytest.approx(2 / 8)
    assert pair["jaccard_by_chance"] == pytest.approx(0.25 / 9.75)
    assert pair["q"] == pytest.approx((2 * 92 - 3 * 3) / (2 * 92 + 3 * 3))
    assert json.loads(json.dumps(found)) == found


def test_the_same_member_twice_overlaps_wholly() -> None:
    logits, positive = sample(1.0)
    pair = diversity(logits, positive, ("a", "b"), 0.01)["pairs"][0]
    assert (pair["jaccard"], pair["q"]) == (1.0, 1.0)
    assert pair["correlation"] == pytest.approx(1.0)


def test_independent_members_overlap_by_chance() -> None:
    """160 false positives of 16,000 each: an overlap of 1.6 is expected, Poisson."""
    logits, positive = sample(0.0)
    pair = diversity(logits, positive, ("a", "b"), 0.01)["pairs"][0]
    assert pair["jaccard_by_chance"] == pytest.approx(1.6 / (320 - 1.6))
    assert pair["both"] <= 8
    assert abs(pair["correlation"]) < 0.04  # five standard errors


def test_more_alike_members_overlap_more() -> None:
    found = [diversity(*sample(alike), ("a", "b"), 0.01)["pairs"][0] for alike in (0.2, 0.5, 0.8)]
    assert [p["jaccard"] for p in found] == sorted(p["jaccard"] for p in found)
    assert found[0]["jaccard"] < found[2]["jaccard"]


def test_a_sample_that_is_too_small_is_said_to_be_so() -> None:
    logits, positive = sample(0.5, n=50)
    found = diversity(logits, positive, ("a", "b"), 1e-3)
    assert found == {"fpr": 1e-3, "not_supported_by_this_sample": "needs 1000 non-lenses, found 40"}


def test_a_constant_member_has_no_correlation() -> None:
    logits, positive = sample(0.5)
    logits[:, 1] = 0.0
    pair = diversity(logits, positive, ("a", "b"), 0.01)["pairs"][0]
    assert (pair["correlation"], pair["q"], pair["jaccard"]) == (None, None, 0.0)


def test_a_name_per_member() -> None:
    with pytest.raises(InputError, match="names"):
        diversity(*sample(0.5), ("a",), 0.01)
