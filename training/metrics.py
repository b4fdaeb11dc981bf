"""Figures of merit of a ranking, with intervals: AUROC, TPR0, TPR10, TPR at a stated FPR.

A source is called a lens where its score is strictly above the threshold, so tied scores fall on
the same side. TPR0 and TPR10: the largest true-positive rate with no false positive, and with fewer
than ten (Metcalf et al. 2019, arXiv:1802.03609).

Intervals are 95%. Where the threshold comes from the same sample (all of the above) they are
percentiles of a bootstrap over lenses and non-lenses apart, which holds the scatter of the
threshold too; a rate at a fixed threshold has Clopper and Pearson's. The bootstrap fails where one
or two non-lenses set the threshold: no resample holds a non-lens above the sample's highest
(Bickel & Freedman 1981, Ann. Stat. 9, 1196). With Gaussian scores, 2000 non-lenses and 600 lenses,
it covers the mean rate in 74% of samples for no false positive (TPR0), 89% for one, 95% and more
from two on; the notes of the first two say so.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from jaxtyping import Bool, Float, Float64, Int64

from lenspipe.errors import InputError
from lenspipe.models.card import Metric
from lenspipe.proportion import clopper_pearson

RESAMPLES = 1000
BOOTSTRAP = "95% interval: bootstrap, 1000 resamples of lenses and non-lenses apart"
TOO_FEW = (
    "no 95% interval: bootstrap, 1000 resamples of lenses and non-lenses apart, of a threshold set "
    "by one or two non-lenses; covers about 74% (one) or 89% (two) in a Gaussian toy"
)
FEWEST = 3  # non-lenses, down to the one at the threshold, for a bootstrap that covers 95%
INDEPENDENT = "sources taken as independent; their set was made from {}"
CLOPPER_PEARSON = "95% interval: Clopper-Pearson, at a fixed threshold"


@dataclass(frozen=True)
class Unsupported:
    """A figure that the sample is too small for."""

    reason: str


class Curve:
    """The ROC curve of scores (n,) and which of them are lenses (n,)."""

    def __init__(self, scores: Float[np.ndarray, " n"], positive: Bool[np.ndarray, " n"]) -> None:
        if not np.isfinite(scores).all():
            raise InputError("scores", "finite values", "NaN or infinity")
        if not positive.any() or positive.all():
            raise InputError("labels", "lenses and non-lenses", f"{positive.sum()} lenses")
        order = np.argsort(-scores.astype(np.float64), kind="stable")
        self.scores: Float64[np.ndarray, " n"] = scores[order].astype(np.float64)
        self.positive = positive[order].astype(bool)
        self.n_positives = int(self.positive.sum())
        self.n_negatives = len(self.positive) - self.n_positives

    @cached_property
    def last(self) -> Int64[np.ndarray, " level"]:
        """Position of the last source of each distinct score, best first."""
        return np.append(np.flatnonzero(np.diff(self.scores)), len(self.scores) - 1)

    def counts(
        self, weights: Int64[np.ndarray, " n"] | None = None
    ) -> tuple[Int64[np.ndarray, " level1"], Int64[np.ndarray, " level1"]]:
        """True and false positives above each distinct score, beginning with none at all.

        weights: how often each source counts, in the order of `scores`.
        """
        drawn = np.ones(len(self.scores), np.int64) if weights is None else weights
        true = np.cumsum(np.where(self.positive, drawn, 0))[self.last]
        false = np.cumsum(np.where(self.positive, 0, drawn))[self.last]
        return np.append(0, true), np.append(0, false)

    def auroc(self) -> float:
        """Probability that a lens scores above a non-lens; ties count one half."""
        return _auroc(*self.counts())

    def tpr(self, false_positives: int) -> float:
        """Largest true-positive rate with at most so many false positives."""
        return _tpr(*self.counts(), false_positives)

    def threshold(self, fpr: float) -> float:
        """Score above which at most `fpr` of the non-lenses lie: half-way to the next score up, so
        that neither `>` nor `>=` nor the last digit matters. InputError where n is too small."""
        allowed = allowed_false_positives(self.n_negatives, fpr)
        if isinstance(allowed, Unsupported):
            raise InputError(f"threshold at FPR {fpr:g}", "enough non-lenses", allowed.reason)
        _, false = self.counts()
        levels = self.scores[self.last]
        level = int(np.searchsorted(false, allowed, side="right")) - 1  # the last that is allowed
        if level == len(levels):
            return _next_float32(levels[-1], -np.inf)
        below = float(levels[level])
        if level == 0:
            return _next_float32(below, np.inf)
        return 0.5 * (below + float(levels[level - 1]))


def figures(
    scores: Float[np.ndarray, " n"],
    positive: Bool[np.ndarray, " n"],
    fprs: Sequence[float] = (1e-2, 1e-3),
    seed: int = 0,
    rests_on: str = "",
) -> dict[str, Metric | Unsupported]:
    """AUROC, TPR0, TPR10 and TPR at each FPR, with intervals; Unsupported where n is too small.

    rests_on: the distinct objects that the sources were made from, in words, for the notes.
    """
    curve = Curve(scores, positive)
    budgets: dict[str, int | Unsupported] = {
        "tpr0": 0,
        "tpr10": 9 if curve.n_negatives > 9 else Unsupported("needs 10 non-lenses"),
    }
    for fpr in fprs:
        budgets[f"tpr_at_fpr_{fpr:g}"] = allowed_false_positives(curve.n_negatives, fpr)
    allowed = {name: n for name, n in budgets.items() if isinstance(n, int)}
    drawn = _bootstrap(curve, allowed, seed)
    found: dict[str, Metric | Unsupported] = {
        "auroc": _metric(curve, curve.auroc(), drawn["auroc"], note(BOOTSTRAP, rests_on))
    }
    for name, budget in budgets.items():
        found[name] = (
            budget
            if isinstance(budget, Unsupported)
            else _metric(curve, curve.tpr(budget), drawn[name], tpr_note(budget, rests_on))
        )
    return found


def tpr_note(allowed: int, rests_on: str) -> str:
    """Note of a true-positive rate at a threshold that lets `allowed` non-lenses pass."""
    return note(BOOTSTRAP if allowed + 1 >= FEWEST else TOO_FEW, rests_on)


def note(interval: str, rests_on: str) -> str:
    """How an interval was made, and what it takes as independent."""
    return "; ".join([interval, INDEPENDENT.format(rests_on)] if rests_on else [interval])


def rate(above: Bool[np.ndarray, " n"], positives: bool, rests_on: str = "") -> Metric:
    """Fraction of sources above a fixed threshold, Clopper and Pearson's interval.

    positives: whether the sources are lenses (a completeness) or not (a false-positive rate).
    rests_on: as in `figures`.
    """
    n, k = len(above), int(above.sum())
    if n == 0:
        raise InputError("rate", "at least one source", 0)
    return Metric(
        value=k / n,
        interval=clopper_pearson(k, n),
        n_positives=n if positives else 0,
        n_negatives=0 if positives else n,
        note=note(CLOPPER_PEARSON, rests_on),
    )


def allowed_false_positives(n_negatives: int, fpr: float) -> int | Unsupported:
    """Whole false positives that an FPR allows; Unsupported where it is less than one."""
    expected = n_negatives * fpr
    if expected < 1.0 - 1e-9:
        need = int(np.ceil(1.0 / fpr - 1e-9))
        return Unsupported(f"needs {need} non-lenses, found {n_negatives}")
    return int(expected + 1e-9)


def _bootstrap(
    curve: Curve, allowed: dict[str, int], seed: int
) -> dict[str, Float64[np.ndarray, " resample"]]:
    generator = np.random.default_rng(seed)
    drawn: dict[str, list[float]] = {name: [] for name in ("auroc", *allowed)}
    weights = np.empty(len(curve.scores), np.int64)
    for _ in range(RESAMPLES):
        for group in (curve.positive, ~curve.positive):
            n = int(group.sum())
            weights[group] = np.bincount(generator.integers(0, n, n), minlength=n)
        true, false = curve.counts(weights)
        drawn["auroc"].append(_auroc(true, false))
        for name, budget in allowed.items():
            drawn[name].append(_tpr(true, false, budget))
    return {name: np.asarray(values) for name, values in drawn.items()}


def _metric(
    curve: Curve, value: float, drawn: Float64[np.ndarray, " resample"], words: str
) -> Metric:
    low, high = np.percentile(drawn, [2.5, 97.5])
    return Metric(
        value=value,
        interval=(float(low), float(high)),
        n_positives=curve.n_positives,
        n_negatives=curve.n_negatives,
        note=words,
    )


def _next_float32(value: float, towards: float) -> float:
    """The next number that float32 scores can be compared with."""
    return float(np.nextafter(np.float32(value), np.float32(towards)))


def _auroc(true: Int64[np.ndarray, " level"], false: Int64[np.ndarray, " level"]) -> float:
    area = np.sum(np.diff(false) * (true[1:] + true[:-1])) / 2.0
    return float(area / (true[-1] * false[-1]))


def _tpr(
    true: Int64[np.ndarray, " level"], false: Int64[np.ndarray, " level"], allowed: int
) -> float:
    last = int(np.searchsorted(false, allowed, side="right")) - 1
    return float(true[last] / true[-1])
