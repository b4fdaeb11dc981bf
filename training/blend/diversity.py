"""How alike members err: overlap of their false positives, and correlation of their logits.

A committee gains where its members' false positives overlap weakly (Cañameras et al. 2024,
arXiv:2306.03136). Measured among non-lenses, each member at its own threshold for one FPR:

- Jaccard index of two members' false positives, beside the one that members who err independently
  would have: overlap a·b/n of a and b false positives among n non-lenses.
- Yule's Q (Kuncheva & Whitaker 2003, Machine Learning 51, 181, Eq. 1): 0 for independent errors, 1
  where one member's errors hold all of the other's, below 0 where they avoid each other.
- Pearson's correlation of the logits themselves.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Float64

from lenspipe.errors import InputError
from training.metrics import Curve, Unsupported, allowed_false_positives


def diversity(
    logits: Float[np.ndarray, "n member"],
    positive: Bool[np.ndarray, " n"],
    names: Sequence[str],
    fpr: float,
) -> dict[str, Any]:
    """Plain values for a report, all of non-lenses alone.

    `fpr`, `n_negatives`, `false_positives` (member -> how many), `shared_by` (k -> non-lenses that
    are a false positive of exactly k members), `pairs`: per pair of members `members`, `both`,
    `jaccard`, `jaccard_by_chance`, `q`, `correlation`; None where a figure is not defined. Only
    `not_supported_by_this_sample`, a reason, where the FPR allows no whole false positive.
    """
    if len(names) != logits.shape[1]:
        raise InputError("names", f"{logits.shape[1]}, one per member", len(names))
    allowed = allowed_false_positives(int((~positive).sum()), fpr)
    if isinstance(allowed, Unsupported):
        return {"fpr": fpr, "not_supported_by_this_sample": allowed.reason}
    negative = logits[~positive].astype(np.float64)
    thresholds = [Curve(column, positive).threshold(fpr) for column in logits.T]
    false = negative > np.asarray(thresholds)
    together = np.bincount(false.sum(axis=1), minlength=len(names) + 1)
    return {
        "fpr": fpr,
        "n_negatives": len(negative),
        "false_positives": dict(zip(names, map(int, false.sum(axis=0)), strict=True)),
        "shared_by": {str(k): int(n) for k, n in enumerate(together) if k > 0},
        "pairs": [
            {"members": [names[a], names[b]], **_pair(false[:, [a, b]], negative[:, [a, b]])}
            for a, b in combinations(range(len(names)), 2)
        ],
    }


def _pair(false: Bool[np.ndarray, "n 2"], logits: Float64[np.ndarray, "n 2"]) -> dict[str, Any]:
    n, (first, second) = len(false), false.sum(axis=0).astype(float)
    both = float(false.all(axis=1).sum())
    chance = first * second / n
    same, other = both * (n - first - second + both), (first - both) * (second - both)
    return {
        "both": int(both),
        "jaccard": _ratio(both, first + second - both),
        "jaccard_by_chance": _ratio(chance, first + second - chance),
        "q": _ratio(same - other, same + other),
        "correlation": _correlation(logits),
    }


def _correlation(logits: Float64[np.ndarray, "n 2"]) -> float | None:
    centred = logits - logits.mean(axis=0)
    norm = np.sqrt((centred**2).sum(axis=0)).prod()
    return _ratio(float(centred.prod(axis=1).sum()), float(norm))


def _ratio(part: float, whole: float) -> float | None:
    return float(part / whole) if whole != 0.0 else None
