"""Which kinds of source are taken for lenses."""

from __future__ import annotations

from typing import Any

import numpy as np
from jaxtyping import Bool, Float

from lenspipe.proportion import clopper_pearson
from training.metrics import Curve


def by_kind(
    scores: Float[np.ndarray, " n"],
    threshold: float,
    positive: Bool[np.ndarray, " n"],
    kinds: np.ndarray,
) -> dict[str, dict[str, Any]]:
    """Per kind of source, the most confused first: how many there are and pass, the rate with its
    95% Clopper-Pearson interval, its `share` of all false positives, its median score, and (of a
    kind that is no lens) the AUROC of all lenses against it alone."""
    false = int((scores[~positive] > threshold).sum())
    found = {
        kind: _kind(scores, threshold, positive, (kinds == kind) & (positive == is_lens), false)
        for is_lens in (False, True)
        for kind in sorted(set(kinds[positive == is_lens].tolist()))
    }
    return dict(sorted(found.items(), key=lambda item: (item[1]["is_lens"], -item[1]["rate"])))


def _kind(
    scores: Float[np.ndarray, " n"],
    threshold: float,
    positive: Bool[np.ndarray, " n"],
    own: Bool[np.ndarray, " n"],
    false: int,
) -> dict[str, Any]:
    n, passing, is_lens = (
        int(own.sum()),
        int((scores[own] > threshold).sum()),
        bool(positive[own][0]),
    )
    found = {
        "is_lens": is_lens,
        "n": n,
        "passing": passing,
        "rate": passing / n,
        "interval": list(clopper_pearson(passing, n)),
        "median_score": float(np.median(scores[own])),
    }
    if not is_lens:
        found["share"] = passing / false if false else 0.0
        both = own | positive
        found["auroc"] = Curve(scores[both], positive[both]).auroc()
    return found
