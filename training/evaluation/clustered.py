"""Interval of a proportion whose trials come in clusters: stamps of one host, sources of one frame.

Korn & Graubard 1998 (Survey Methodology 24, 193): Clopper and Pearson's interval of as many trials
as are independent. Here a whole cluster is taken to hit or to miss together, the least that it can
tell, so that clusters of one size count as one trial each. A bootstrap over clusters is of no use
where all or none hit: every resample is the same.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Int64

from lenspipe.proportion import beta_quantile

_TAIL = 0.025  # of a 95% interval, at either end


def interval(hits: Bool[np.ndarray, " n"], clusters: np.ndarray) -> tuple[float, float]:
    """Low and high end, 95%. clusters: the name of each trial's. (0, 1) where nothing was tried."""
    if not len(hits):
        return 0.0, 1.0
    trials = effective(np.unique(clusters.astype(str), return_counts=True)[1])
    hit = float(hits.mean()) * trials
    low = 0.0 if not hits.any() else beta_quantile(_TAIL, hit, trials - hit + 1.0)
    high = 1.0 if hits.all() else beta_quantile(1.0 - _TAIL, hit + 1.0, trials - hit)
    return low, high


def effective(sizes: Int64[np.ndarray, " cluster"]) -> float:
    """How many clusters of one size would tell as much: (sum n)² / sum n² (Kish 1965)."""
    return float(sizes.sum() ** 2 / (sizes.astype(np.float64) ** 2).sum())
