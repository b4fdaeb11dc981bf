"""A cheap member first: the logit below which the others are not asked, for a stated loss.

At the prevalence of a survey nearly every row is a non-lens that one network sees through, so the
cost of a committee comes near to that of its first member. What it costs in lenses is chosen on the
calibration set and measured on the test set.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Float32, Float64
from pydantic import Field

from lenspipe.cutouts.base import Block
from lenspipe.errors import InputError
from lenspipe.models.ensemble import cascaded_score, load_ensemble
from lenspipe.models.ensemble_file import Cascade
from lenspipe.proportion import clopper_pearson
from training.metrics import Curve

# Rows next to the bound, of which the floor is the median score.
BOUNDARY_ROWS = 200
# Scores by which the lowest threshold lies above the floor at least.
MARGIN = 0.5
# Non-lenses that all members see at least, as a multiple of those above the lowest threshold.
SPARE = 3.0


class CascadeChoice(Block):
    """first: the member that sees every row, `auto` for the one that makes the cascade cheapest by
    time measured here. tpr_loss: largest loss of true-positive rate, absolute, at the score that
    has the false-positive rate `fpr`. prevalence: fraction of lenses that the cost is reckoned at.
    """

    first: str = "auto"
    tpr_loss: float = Field(default=0.005, gt=0.0, lt=1.0)
    fpr: float = Field(default=1e-3, gt=0.0, lt=1.0)
    prevalence: float = Field(default=1e-4, gt=0.0, lt=1.0)


@dataclass(frozen=True)
class Stopped:
    """What a cascade does on one set. tpr_loss: fraction of all lenses that the whole ensemble puts
    above its threshold at `fpr` and that the cascade stops; its interval is Clopper and Pearson's,
    95%. asked: fraction of each kind that all members see, and at `prevalence`. cost_ratio: time of
    the cascade over that of the whole ensemble, reckoned from the members' times."""

    fpr: float
    tpr_loss: float
    tpr_loss_interval: tuple[float, float]
    n_positives: int
    n_negatives: int
    asked_lenses: float
    asked_others: float
    prevalence: float
    asked: float
    cost_ratio: float | None = None

    def as_dict(self) -> dict[str, Any]:
        """Plain values for a report."""
        return asdict(self)


def fit_cascade(
    choice: CascadeChoice,
    names: Sequence[str],
    logits: Float[np.ndarray, "n member"],
    blended: Float32[np.ndarray, " n"],
    positive: Bool[np.ndarray, " n"],
    seconds: Mapping[str, float],
    fprs: Sequence[float],
) -> Cascade:
    """The cascade of the least reckoned cost, from the members' logits and the ensemble's scores.

    seconds: per image of each member. fprs: what the ensemble is to have thresholds for, so that
    more non-lenses than that must be seen by all members.
    """
    firsts = names if choice.first == "auto" else [choice.first]
    made = [
        _cascade(choice, name, logits[:, names.index(name)], blended, positive, max(fprs))
        for name in firsts
    ]
    costs = [
        judge_cascade(choice, one, names, logits, blended, positive, seconds).cost_ratio
        for one in made
    ]
    return made[int(np.argmin(np.asarray(costs, np.float64)))]


def _cascade(
    choice: CascadeChoice,
    name: str,
    first: Float[np.ndarray, " n"],
    blended: Float32[np.ndarray, " n"],
    positive: Bool[np.ndarray, " n"],
    largest_fpr: float,
) -> Cascade:
    enough = np.quantile(first[~positive], max(0.0, 1.0 - SPARE * largest_fpr))
    below = min(bound(first, blended, positive, choice), float(enough))
    lowest_threshold = Curve(blended, positive).threshold(largest_fpr)
    near = np.argsort(np.abs(first - below))[:BOUNDARY_ROWS]
    floor = min(float(np.median(blended[near])), lowest_threshold - MARGIN)
    return Cascade(first=name, below=below, floor=floor)


def bound(
    first: Float[np.ndarray, " n"],
    blended: Float32[np.ndarray, " n"],
    positive: Bool[np.ndarray, " n"],
    choice: CascadeChoice,
) -> float:
    """The largest logit of the first member under which lie no more lenses that the ensemble finds
    than `tpr_loss` allows: half-way between two of them, so that no last digit matters."""
    found = positive & (blended > Curve(blended, positive).threshold(choice.fpr))
    allowed = int(choice.tpr_loss * positive.sum() + 1e-9)
    logits = np.sort(first[found].astype(np.float64))
    if len(logits) <= allowed:
        raise InputError(
            "cascade.tpr_loss", f"less than the TPR, {len(logits)} lenses", f"{allowed} lenses"
        )
    lower = logits[allowed - 1] if allowed else logits[0] - 1.0
    return float(0.5 * (lower + logits[allowed]))


def passed(cascade: Cascade, first: Float[np.ndarray, " n"]) -> Bool[np.ndarray, " n"]:
    """Rows that all members see, as `lenspipe.models.ensemble` decides it."""
    return np.asarray(first.astype(np.float32) >= np.float32(cascade.below))


def cascaded(
    cascade: Cascade,
    names: Sequence[str],
    logits: Float[np.ndarray, "n member"],
    blended: Float32[np.ndarray, " n"],
) -> Float32[np.ndarray, " n"]:
    """The scores that `lenspipe` gives with the cascade, from those without."""
    first = logits[:, names.index(cascade.first)].astype(np.float32)
    return cascaded_score(first, blended, passed(cascade, first), cascade)


def judge_cascade(
    choice: CascadeChoice,
    cascade: Cascade,
    names: Sequence[str],
    logits: Float[np.ndarray, "n member"],
    blended: Float32[np.ndarray, " n"],
    positive: Bool[np.ndarray, " n"],
    seconds: Mapping[str, float] | None = None,
) -> Stopped:
    """What `cascade` costs in lenses and saves in time on one set."""
    asked = passed(cascade, logits[:, names.index(cascade.first)])
    found = positive & (blended > Curve(blended, positive).threshold(choice.fpr))
    lost, n = int((found & ~asked).sum()), int(positive.sum())
    lenses, others = float(asked[positive].mean()), float(asked[~positive].mean())
    judged = Stopped(
        fpr=choice.fpr,
        tpr_loss=lost / n,
        tpr_loss_interval=clopper_pearson(lost, n),
        n_positives=n,
        n_negatives=len(positive) - n,
        asked_lenses=lenses,
        asked_others=others,
        prevalence=choice.prevalence,
        asked=choice.prevalence * lenses + (1.0 - choice.prevalence) * others,
    )
    if seconds is None:
        return judged
    first, whole = seconds[cascade.first], sum(seconds[name] for name in names)
    return replace(judged, cost_ratio=(first + judged.asked * (whole - first)) / whole)


def time_ratio(
    ensemble: Path, images: Mapping[str, np.ndarray], repeats: int = 5
) -> dict[str, Any]:
    """Time of the cascade over that of all members, through `lenspipe.models.ensemble` on the CPU
    in this process, in turns; and the fraction of the rows of `images` that all members saw."""
    loaded = load_ensemble(str(ensemble), provider="cpu")
    ratios: Float64[np.ndarray, " repeat"] = np.empty(repeats)
    for k in range(-1, repeats):  # the first turn allocates
        began = time.perf_counter()
        loaded.score(images, full=True)
        middle = time.perf_counter()
        scored = loaded.score(images)
        ratios[k] = (time.perf_counter() - middle) / (middle - began)
    return {
        "rows": len(scored.score),
        "asked": float(np.isfinite(scored.members).all(axis=1).mean()),
        "time_ratio_median": float(np.median(ratios)),
        "time_ratios": sorted(ratios.tolist()),
    }
