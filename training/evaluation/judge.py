"""What a ranking is worth on a test set: figures, curves, and rates by kind of source."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Bool, Float

from lenspipe.models.calibrate import calibrate, to_prevalence
from lenspipe.models.card import Calibration, Metric, ScoreDistribution, Threshold
from lenspipe.models.drift import distribution_of
from training.data import Examples
from training.evaluation import completeness, confusion, curves, purity, reliability
from training.metrics import Curve, Unsupported, figures, rate

FPRS = (1e-2, 1e-3, 1e-4)
# One lens in so many sources, for the expected purity: after a photometric pre-filter, and before.
PREVALENCES = (1e-3, 1e-4)
Figures = dict[str, Metric | Unsupported]


def thresholds_of(
    scores: Float[np.ndarray, " n"], positive: Bool[np.ndarray, " n"], fprs: Sequence[float]
) -> tuple[Threshold, ...]:
    """The score that each false-positive rate needs; InputError where the set is too small."""
    curve = Curve(scores, positive)
    return tuple(
        Threshold(fpr=fpr, score=curve.threshold(fpr), n_negatives=curve.n_negatives)
        for fpr in fprs
    )


def evaluate(
    scores: Float[np.ndarray, " n"],
    test: Examples,
    thresholds: Sequence[Threshold],
    calibration: Calibration | None = None,
    prevalences: Sequence[float] = PREVALENCES,
) -> dict[str, Any]:
    """Everything about one ranking of one test set.

    `figures`: of the whole set, the true-positive rate at `FPRS` and at the thresholds'
    false-positive rates among them. `at_threshold`: see there. `curves`: ROC, and precision,
    recall, accuracy, F1, F_beta against the threshold. `reliability`: of the probability that
    `calibration` gives. `completeness_hexbins`: by pairs of truth columns, at the strictest
    threshold.
    """
    fprs = sorted({*FPRS, *(t.fpr for t in thresholds)}, reverse=True)
    found: dict[str, Any] = {
        "figures": figures(scores, test.positive, fprs, rests_on=test.rests_on),
        "at_threshold": {
            f"fpr_{t.fpr:g}": at_threshold(scores, t.score, test, prevalences) for t in thresholds
        },
        "curves": {
            "roc": curves.roc(Curve(scores, test.positive)),
            "against_threshold": curves.against_threshold(scores, test.positive),
        },
        "reliability": reliability.reliability(
            probabilities(scores, test.positive, calibration), test.positive
        ),
    }
    if thresholds:
        strictest = min(thresholds, key=lambda t: t.fpr)
        found["completeness_hexbins"] = {
            "at": f"fpr_{strictest.fpr:g}",
            "panels": completeness.hexbins(scores > strictest.score, test),
        }
    return found


def probabilities(
    scores: Float[np.ndarray, " n"],
    positive: Bool[np.ndarray, " n"],
    calibration: Calibration | None,
) -> Float[np.ndarray, " n"]:
    """Calibrated probabilities at the set's own fraction of lenses.

    Without a calibration the score is taken as a logit at that fraction.
    """
    found = calibrate(scores, calibration).astype(np.float64)
    if calibration is None:
        return found
    return np.asarray(to_prevalence(found, calibration.prevalence, float(positive.mean())))


def at_threshold(
    scores: Float[np.ndarray, " n"],
    threshold: float,
    test: Examples,
    prevalences: Sequence[float] = PREVALENCES,
) -> dict[str, Any]:
    """Rates of sources above a threshold that was chosen on another set.

    False-positive rate (all and by kind), completeness (all and by bin of the truth), confusion by
    kind, and the purity to expect where lenses are as rare as `prevalences` say.
    """
    above, lens = scores > threshold, test.positive
    kinds = sorted(set(test.kinds[~lens].tolist()))
    made = test.rests_on
    counts = purity.Counts(
        int(above[lens].sum()), int(lens.sum()), int(above[~lens].sum()), int((~lens).sum())
    )
    return {
        "completeness": rate(above[lens], positives=True, rests_on=made),
        "fpr": rate(above[~lens], positives=False, rests_on=made),
        "fpr_by_kind": {
            kind: rate(above[~lens & (test.kinds == kind)], positives=False, rests_on=made)
            for kind in kinds
        },
        "completeness_by": completeness.by_truth(above, test),
        "confusion": confusion.by_kind(scores, threshold, test.positive, test.kinds),
        "purity": {f"{p:g}": purity.expected_purity(counts, p) for p in prevalences},
    }


def scores_of_others(scores: Float[np.ndarray, " n"], test: Examples) -> ScoreDistribution | None:
    """How the scores of non-lenses lie: what those of a survey are held against.

    None where they are too few or all the same.
    """
    others = scores[~test.positive]
    try:
        return distribution_of(others, f"non-lenses of the test set {test.name}")
    except ValueError:
        return None


def card_metrics(found: Mapping[str, Any]) -> dict[str, Metric]:
    """The figures that a card takes: those that the sample supports."""
    return {name: value for name, value in found["figures"].items() if isinstance(value, Metric)}


def in_words(metrics: Mapping[str, Metric]) -> str:
    """Figures on one line."""
    return ", ".join(
        f"{name} {m.value:.4f} ({m.interval[0]:.4f} to {m.interval[1]:.4f})"
        for name, m in metrics.items()
    )
