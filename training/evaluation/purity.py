"""What a threshold means on the sky, where lenses are rare: purity, false positives per lens."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from lenspipe.errors import InputError
from lenspipe.proportion import clopper_pearson


@dataclass(frozen=True)
class Counts:
    """Lenses and other sources of a test set, and how many of each lie above a threshold."""

    true: int
    positives: int
    false: int
    negatives: int


def expected_purity(counts: Counts, prevalence: float) -> dict[str, Any]:
    """Fraction of lenses among what passes where one source in 1/prevalence is a lens.

    purity = p TPR / (p TPR + (1 - p) FPR), by Bayes' rule. The intervals follow from Clopper and
    Pearson's 95% interval of the FPR alone, which by far outweighs that of the TPR; the sky's
    non-lenses are taken to be mixed as the test set's are.
    """
    if not 0.0 < prevalence < 1.0:
        raise InputError("prevalence", "a fraction between 0 and 1", prevalence)
    tpr = counts.true / counts.positives
    fpr = counts.false / counts.negatives
    low, high = clopper_pearson(counts.false, counts.negatives)
    return {
        "prevalence": prevalence,
        "purity": _purity(tpr, fpr, prevalence),
        "purity_interval": [_purity(tpr, high, prevalence), _purity(tpr, low, prevalence)],
        "false_positives_per_lens_found": _per_lens(tpr, fpr, prevalence),
        "false_positives_per_lens_found_interval": [
            _per_lens(tpr, low, prevalence),
            _per_lens(tpr, high, prevalence),
        ],
    }


def _purity(tpr: float, fpr: float, prevalence: float) -> float:
    lenses, others = prevalence * tpr, (1.0 - prevalence) * fpr
    return lenses / (lenses + others) if lenses + others > 0 else math.nan


def _per_lens(tpr: float, fpr: float, prevalence: float) -> float:
    """NaN where no lens is found."""
    lenses = prevalence * tpr
    return (1.0 - prevalence) * fpr / lenses if lenses > 0 else math.nan
