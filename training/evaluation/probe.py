"""Can two sets of stamps be told apart? A linear probe, never judged on what it was fitted on."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Float64, Int64

from lenspipe.errors import InputError
from training.metrics import Curve

FOLDS = 5
STRENGTHS = (1e-3, 1e-2, 1e-1)  # inverse of the ridge; chosen within each training part
RESAMPLES = 1000


def separability(
    features: Float[np.ndarray, "n feature"],
    real: Bool[np.ndarray, " n"],
    objects: np.ndarray,
    seed: int = 0,
) -> dict[str, Any]:
    """AUROC of a logistic regression that tells real stamps from mocks; 0.5: it cannot.

    Each stamp is judged by a fit that saw none of its object (`objects`: names). The interval is a
    bootstrap over objects.
    """
    few = min(len(set(objects[real])), len(set(objects[~real])))
    if few < FOLDS:
        raise InputError("realism", f"at least {FOLDS} objects of each kind", few)
    values = np.nan_to_num(_filled(features.astype(np.float64)))
    scores = _crossed(values, real, objects, seed)
    low, high = _interval(scores, real, objects, seed)
    return {
        "auroc": Curve(scores, real).auroc(),
        "interval": [low, high],
        "features": features.shape[1],
        "real": int(real.sum()),
        "real_objects": len(set(objects[real])),
        "mocks": int((~real).sum()),
    }


def telling(
    measures: Mapping[str, Float[np.ndarray, " n"]], real: Bool[np.ndarray, " n"]
) -> list[dict[str, Any]]:
    """Each statistic by itself, the most telling first: the AUROC of real above mock, and both
    medians. `shift`: the difference of the medians in scatters (MAD) of the real ones."""
    found = []
    for name, values in measures.items():
        use = np.isfinite(values)
        a, b = values[use & real], values[use & ~real]
        if len(a) and len(b):
            spread = 1.4826 * float(np.median(np.abs(a - np.median(a))))
            apart = float(np.median(a) - np.median(b))
            found.append(
                {
                    "name": name,
                    "auroc": Curve(values[use].astype(np.float64), real[use]).auroc(),
                    "real_median": float(np.median(a)),
                    "mock_median": float(np.median(b)),
                    "shift": apart / spread if spread > 0 else np.nan,
                }
            )
    return sorted(found, key=lambda one: -abs(one["auroc"] - 0.5))


def _filled(values: Float64[np.ndarray, "n feature"]) -> Float64[np.ndarray, "n feature"]:
    """A value that could not be measured becomes its column's median."""
    known = np.isfinite(values)
    columns = [np.median(c[k]) if k.any() else 0.0 for c, k in zip(values.T, known.T, strict=True)]
    return np.where(known, values, np.asarray(columns))


def _crossed(
    values: Float64[np.ndarray, "n feature"],
    real: Bool[np.ndarray, " n"],
    objects: np.ndarray,
    seed: int,
) -> Float64[np.ndarray, " n"]:
    scores = np.empty(len(real))
    for train, test in _folds(real, objects, FOLDS, seed):
        strength = _strength(values[train], real[train], objects[train], seed)
        scores[test] = _scored(values, real, train, test, strength)
    return scores


def _strength(
    values: Float64[np.ndarray, "n feature"],
    real: Bool[np.ndarray, " n"],
    objects: np.ndarray,
    seed: int,
) -> float:
    """The ridge that separates best within the training part, again apart by object."""
    parts = list(_folds(real, objects, 3, seed))
    worth = []
    for strength in STRENGTHS:
        scores = np.empty(len(real))
        for train, test in parts:
            scores[test] = _scored(values, real, train, test, strength)
        worth.append(Curve(scores, real).auroc())
    return STRENGTHS[int(np.argmax(worth))]


def _folds(real: Bool[np.ndarray, " n"], objects: np.ndarray, n: int, seed: int) -> Any:
    from sklearn.model_selection import StratifiedGroupKFold

    crossing = StratifiedGroupKFold(n, shuffle=True, random_state=seed)
    return crossing.split(np.zeros(len(real)), real, objects.astype(str))


def _scored(
    values: Float64[np.ndarray, "n feature"],
    real: Bool[np.ndarray, " n"],
    train: Int64[np.ndarray, " a"],
    test: Int64[np.ndarray, " b"],
    strength: float,
) -> Float64[np.ndarray, " b"]:
    """Scores of `test` on the scale of those of `train`, so that several fits can be pooled."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    line = LogisticRegression(C=strength, class_weight="balanced", max_iter=500, tol=1e-3)
    fit = make_pipeline(StandardScaler(), line).fit(values[train], real[train])
    known = fit.decision_function(values[train])
    scaled = (fit.decision_function(values[test]) - known.mean()) / max(known.std(), 1e-12)
    return np.asarray(scaled, np.float64)


def _interval(
    scores: Float64[np.ndarray, " n"], real: Bool[np.ndarray, " n"], objects: np.ndarray, seed: int
) -> tuple[float, float]:
    draw = np.random.default_rng(seed)
    sides = [
        [np.flatnonzero((objects == name) & side) for name in sorted(set(objects[side]))]
        for side in (real, ~real)
    ]
    found = []
    for _ in range(RESAMPLES):
        rows = [np.concatenate([s[k] for k in draw.integers(0, len(s), len(s))]) for s in sides]
        chosen = np.concatenate(rows)
        found.append(Curve(scores[chosen], real[chosen]).auroc())
    low, high = np.percentile(found, [2.5, 97.5])
    return float(low), float(high)
