"""Figures of merit against scikit-learn and against counts by hand."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score, roc_curve

from lenspipe.errors import InputError
from lenspipe.models.card import Metric
from training import metrics
from training.metrics import Curve, Unsupported, figures, rate

# Few distinct scores, so that ties are the rule.
rankings = st.integers(0, 2**32 - 1).map(
    lambda seed: (
        np.random.default_rng(seed).integers(0, 12, 60).astype(np.float32),
        np.arange(60) % 3 == 0,
    )
)


@settings(max_examples=30, deadline=None)
@given(rankings)
def test_auroc_with_ties_is_scikit_learns(ranking: tuple[np.ndarray, np.ndarray]) -> None:
    scores, positive = ranking
    assert Curve(scores, positive).auroc() == pytest.approx(roc_auc_score(positive, scores))


@settings(max_examples=30, deadline=None)
@given(rankings, st.integers(0, 40))
def test_tpr_is_the_best_that_the_false_positives_allow(
    ranking: tuple[np.ndarray, np.ndarray], allowed: int
) -> None:
    scores, positive = ranking
    fpr, tpr, _ = roc_curve(positive, scores, drop_intermediate=False)
    best = tpr[np.rint(fpr * (~positive).sum()) <= allowed].max()
    assert Curve(scores, positive).tpr(allowed) == pytest.approx(best)


@settings(max_examples=30, deadline=None)
@given(rankings, st.sampled_from([0.03, 0.1, 0.3]))
def test_threshold_holds_its_fpr_and_keeps_the_tpr(
    ranking: tuple[np.ndarray, np.ndarray], fpr: float
) -> None:
    scores, positive = ranking
    curve = Curve(scores, positive)
    allowed = metrics.allowed_false_positives(curve.n_negatives, fpr)
    assert isinstance(allowed, int)
    threshold = curve.threshold(fpr)
    for above in (scores > threshold, scores >= threshold):
        assert (above & ~positive).sum() <= allowed
        assert above[positive].mean() == pytest.approx(curve.tpr(allowed))


def test_tpr0_and_tpr10_by_hand() -> None:
    negatives = np.arange(20.0)  # the best is 19, the tenth best 10
    positives = np.array([25.0, 19.0, 15.0, 10.5, 10.0, 3.0])
    scores = np.concatenate([negatives, positives])
    found = figures(scores, np.arange(26) >= 20)
    assert found["tpr0"].value == pytest.approx(1 / 6)  # type: ignore[union-attr] # 20 suffice
    # Fewer than ten false positives: the threshold lies above 10.
    assert found["tpr10"].value == pytest.approx(4 / 6)  # type: ignore[union-attr] # likewise


def test_a_small_sample_does_not_support_a_small_fpr() -> None:
    scores = np.random.default_rng(0).normal(size=300)
    found = figures(scores, np.arange(300) < 100, fprs=(1e-2, 1e-3))
    assert isinstance(found["tpr_at_fpr_0.01"], Metric)
    assert found["tpr_at_fpr_0.001"] == Unsupported("needs 1000 non-lenses, found 200")
    with pytest.raises(InputError, match="needs 1000 non-lenses"):
        Curve(scores, np.arange(300) < 100).threshold(1e-3)


def test_floating_point_loses_no_allowed_false_positive() -> None:
    assert metrics.allowed_false_positives(100, 0.29) == 29
    assert metrics.allowed_false_positives(1000, 1e-3) == 1


def test_bootstrap_covers_the_auroc_of_the_population() -> None:
    """Normal scores one sigma apart: AUROC Φ(1/√2) = 0.7602; 95% intervals miss it rarely."""
    covered = 0
    for seed in range(20):
        draw = np.random.default_rng(seed)
        positive = np.arange(240) < 120
        low, high = figures(draw.normal(size=240) + positive, positive)["auroc"].interval  # type: ignore[union-attr] # AUROC is always supported
        covered += low <= 0.7602 <= high
    assert covered >= 16  # of 20 at 95%, 16 or fewer come up once in 400


def test_clopper_pearson_has_its_textbook_values() -> None:
    """0 of 10: upper limit 1 - 0.025^(1/10) = 0.3085; 5 of 10: 0.1871 to 0.8129."""
    none, half = np.zeros(10, bool), np.arange(10) < 5
    assert rate(none, positives=False).interval == pytest.approx((0, 0.3085), abs=1e-4)
    assert rate(half, positives=True).interval == pytest.approx((0.1871, 0.8129), abs=1e-4)


def test_nan_is_refused() -> None:
    with pytest.raises(InputError, match="finite"):
        Curve(np.array([1.0, np.nan]), np.array([True, False]))
