"""Which epoch's weights are kept: the validation set's figures, and their order."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from jaxtyping import Bool, Float

from lenspipe.errors import InputError
from training.metrics import Curve, Unsupported, allowed_false_positives
from training.recipe import AT_FPR, fpr_of

LOGGED_FPRS = (1e-2, 1e-3)
TPR10_NEEDS = 10  # non-lenses: fewer than ten false positives must mean something


class Choice:
    """The best epoch so far and how many came after it."""

    def __init__(self, select_by: str) -> None:
        self.select_by = select_by
        self.best: tuple[float, float] = (-math.inf, -math.inf)
        self.stale = 0

    def better(self, figures: Mapping[str, float]) -> bool:
        """Count an epoch; whether it is better than all before it."""
        found = order(figures, self.select_by)
        if found > self.best:
            self.best, self.stale = found, 0
            return True
        self.stale += 1
        return False

    def state_dict(self) -> dict[str, Any]:
        """What a resumed training needs."""
        return {"best": list(self.best), "stale": self.stale}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from `state_dict`."""
        first, second = state["best"]
        self.best, self.stale = (float(first), float(second)), int(state["stale"])


def order(figures: Mapping[str, float], select_by: str) -> tuple[float, float]:
    """Larger is better: the figure, and among equals the smaller validation loss."""
    loss = figures["validation_loss"]
    return (-loss if select_by == "validation_loss" else figures[select_by], -loss)


def check_supported(select_by: str, n_negatives: int) -> None:
    """InputError where the validation set has too few non-lenses for the figure."""
    fpr = fpr_of(select_by)
    need = TPR10_NEEDS if select_by == "tpr10" else 0
    allowed = allowed_false_positives(n_negatives, fpr) if fpr else 0
    if isinstance(allowed, Unsupported):
        raise InputError("select_by", "a figure that the validation set can hold", allowed.reason)
    if n_negatives < need:
        reason = f"{select_by} of {n_negatives} non-lenses"
        raise InputError("select_by", "a figure that the validation set can hold", reason)


def validation_figures(
    logits: Float[np.ndarray, " n"],
    positive: Bool[np.ndarray, " n"],
    loss: float,
    select_by: str,
) -> dict[str, float]:
    """Loss, AUROC, TPR0, TPR10 and TPR at each FPR; NaN where the set is too small for one."""
    curve = Curve(logits, positive)
    enough = curve.n_negatives >= TPR10_NEEDS
    found = {
        "validation_loss": loss,
        "auroc": curve.auroc(),
        "tpr0": curve.tpr(0),
        "tpr10": curve.tpr(TPR10_NEEDS - 1) if enough else math.nan,
    }
    names = [f"{AT_FPR}{fpr:g}" for fpr in LOGGED_FPRS]
    if fpr_of(select_by) is not None:
        names.append(select_by)
    return found | {name: _tpr_at(curve, fpr_of(name) or 0.0) for name in names}


def _tpr_at(curve: Curve, fpr: float) -> float:
    allowed = allowed_false_positives(curve.n_negatives, fpr)
    return math.nan if isinstance(allowed, Unsupported) else curve.tpr(allowed)
