from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import accuracy_score, fbeta_score, precision_score, recall_score

from training.evaluation.curves import against_threshold, f_score, roc
from training.metrics import Curve

POSITIVE = np.arange(3000) < 1000
SCORES = np.random.default_rng(0).normal(size=3000) + 1.5 * POSITIVE


def test_curves_against_threshold_are_scikit_learns() -> None:
    found = against_threshold(SCORES, POSITIVE, points=21)
    for k in (3, 10, 15):
        called = found["threshold"][k] < SCORES
        assert found["precision"][k] == pytest.approx(precision_score(POSITIVE, called))
        assert found["recall"][k] == pytest.approx(recall_score(POSITIVE, called))
        assert found["accuracy"][k] == pytest.approx(accuracy_score(POSITIVE, called))
        assert found["f1"][k] == pytest.approx(fbeta_score(POSITIVE, called, beta=1.0))
        assert found["f_beta"][k] == pytest.approx(fbeta_score(POSITIVE, called, beta=0.17))
    assert found["prevalence"] == pytest.approx(1 / 3)


def test_nothing_above_the_highest_score_has_no_precision() -> None:
    found = against_threshold(SCORES, POSITIVE)
    assert np.isnan(found["precision"][-1])
    assert found["recall"][-1] == 0.0
    assert found["best_f_beta"]["value"] == pytest.approx(np.nanmax(found["f_beta"]))


def test_f_beta_prefers_precision() -> None:
    precise = f_score(np.array([0.9]), np.array([0.4]), 0.17)[0]
    complete = f_score(np.array([0.4]), np.array([0.9]), 0.17)[0]
    assert precise > 0.85
    assert complete < 0.45
    assert f_score(np.zeros(1), np.zeros(1), 1.0)[0] == 0.0


def test_the_thinned_roc_keeps_its_corners_and_ends() -> None:
    curve = Curve(SCORES, POSITIVE)
    found = roc(curve, points=60)
    assert len(found["fpr"]) <= 62
    assert found["fpr"][0] == 0.0
    assert (found["fpr"][-1], found["tpr"][-1]) == (1.0, 1.0)
    for fpr, tpr in zip(found["fpr"], found["tpr"], strict=True):
        assert tpr == pytest.approx(curve.tpr(round(fpr * 2000)))
