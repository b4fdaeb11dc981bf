"""Figures of merit against scikit-learn and against counts by hand."""

from __future__ import annotations

import math

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


def coverage(allowed: int, samples: int) -> float:
    """How often the interval of TPR at `allowed` false positives holds the mean TPR of samples of
    its size: Gaussian scores, lenses two sigma up, 1000 non-lenses and 300 lenses."""
    draw = np.random.default_rng(7)
    thresholds = np.sort(draw.normal(size=(2000, 1000)), axis=1)[:, -1 - allowed]
    mean = float(np.mean([0.5 * math.erfc((t - 2.0) / math.sqrt(2.0)) for t in thresholds]))
    positive = np.arange(1300) < 300
    held = 0
    for _ in range(samples):
        found = figures(draw.normal(size=1300) + 2.0 * positive, positive, (allowed / 1000,))
        interval = found[f"tpr_at_fpr_{allowed / 1000:g}"].interval  # type: ignore[union-attr] # 1000 support it
        held += interval[0] <= mean <= interval[1]
    return held / samples


def test_bootstrap_covers_a_tpr_that_three_non_lenses_set() -> None:
    assert metrics.tpr_note(2, "").startswith("95% interval")
    assert coverage(allowed=2, samples=40) >= 0.85  # at 95%, below it comes up once in 300


def test_the_interval_of_tpr0_does_not_claim_to_be_of_95_per_cent() -> None:
    scores, positive = np.random.default_rng(0).normal(size=1000), np.arange(1000) < 300
    found = figures(scores, positive, (1e-2,), rests_on="42 real host galaxies")
    assert found["tpr0"].note.startswith("no 95% interval")  # type: ignore[union-attr] # always supported
    for name in ("auroc", "tpr10", "tpr_at_fpr_0.01"):
        assert found[name].note.startswith("95% interval")  # type: ignore[union-attr] # 700 support it
    assert all("42 real host galaxies" in metric.note for metric in found.values())  # type: ignore[union-attr] # likewise


def test_clopper_pearson_has_its_textbook_values() -> None:
    """0 of 10: upper limit 1 - 0.025^(1/10) = 0.3085; 5 of 10: 0.1871 to 0.8129."""
    none, half = np.zeros(10, bool), np.arange(10) < 5
    assert rate(none, positives=False).interval == pytest.approx((0, 0.3085), abs=1e-4)
    assert rate(half, positives=True).interval == pytest.approx((0.1871, 0.8129), abs=1e-4)


def test_nan_is_refused() -> None:
    with pytest.raises(InputError, match="finite"):
        Curve(np.array([1.0, np.nan]), np.array([True, False]))
