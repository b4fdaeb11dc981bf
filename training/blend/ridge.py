"""Ridge regression of the label on the members' logits, its strength by cross-validation.

Squared loss asks for a label on the scale of what it is regressed on, and is ruled by outliers: the
label's own logit is ±infinity and becomes ±`clip`, the members' logits are clipped to the same
range while the weights are fitted. (Labels 0 and 1 would give the same weights up to a factor.)
The blend itself clips nothing: ties among the best would cost ranks.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from jaxtyping import Bool, Float64, Int64
from pydantic import Field, PositiveFloat
from scipy.optimize import nnls

from lenspipe.cutouts.base import Block
from lenspipe.errors import InputError
from training.blend.onnx_graph import weighted_sum as nodes

__all__ = ["Parameters", "fit", "nodes"]


class Parameters(Block):
    """strengths: what the cross-validation chooses among. folds: lenses and non-lenses are each
    dealt to so many folds in turn, in the order of the set; a fold's error is of weights that the
    others gave. clip: largest logit in the fit. non_negative: allow no weight below 0."""

    strengths: tuple[PositiveFloat, ...] = Field(
        default=(1e-4, 1e-3, 1e-2, 1e-1, 1.0, 10.0), min_length=1
    )
    folds: int = Field(default=5, ge=2)
    clip: PositiveFloat = 6.0
    non_negative: bool = True


def fit(
    p: Parameters, logits: Float64[np.ndarray, "n member"], positive: Bool[np.ndarray, " n"]
) -> dict[str, Any]:
    """Options of the blender."""
    inputs = np.clip(logits, -p.clip, p.clip)
    target = np.where(positive, p.clip, -p.clip)
    fold = deal(positive, p.folds)
    errors = [_held_out_error(p, inputs, target, fold, strength) for strength in p.strengths]
    weights, intercept = _solve(p, inputs, target, p.strengths[int(np.argmin(errors))])
    return {"weights": weights.tolist(), "intercept": intercept}


def deal(positive: Bool[np.ndarray, " n"], folds: int) -> Int64[np.ndarray, " n"]:
    """Fold of each source. InputError where a fold would have no lens or no non-lens."""
    fold = np.empty(len(positive), np.int64)
    for group in (positive, ~positive):
        if group.sum() < folds:
            raise InputError(
                "blender.parameters.folds", f"at most {group.sum()} on this set", folds
            )
        fold[group] = np.arange(group.sum()) % folds
    return fold


def _held_out_error(
    p: Parameters,
    inputs: Float64[np.ndarray, "n member"],
    target: Float64[np.ndarray, " n"],
    fold: Int64[np.ndarray, " n"],
    strength: float,
) -> float:
    """Mean squared error of sources by the weights that the other folds gave."""
    squares = np.empty(len(target))
    for k in range(p.folds):
        held = fold == k
        weights, intercept = _solve(p, inputs[~held], target[~held], strength)
        squares[held] = (inputs[held] @ weights + intercept - target[held]) ** 2
    return float(squares.mean())


def _solve(
    p: Parameters,
    inputs: Float64[np.ndarray, "n member"],
    target: Float64[np.ndarray, " n"],
    strength: float,
) -> tuple[Float64[np.ndarray, " member"], float]:
    """Weights w and intercept that minimise the mean squared error + strength · |w|²."""
    middle, level = inputs.mean(axis=0), float(target.mean())
    centred = inputs - middle
    gram = centred.T @ centred / len(target) + strength * np.eye(inputs.shape[1])
    right = centred.T @ (target - level) / len(target)
    if p.non_negative:  # |L' w - L⁻¹ b|² is w' G w - 2 w' b and a constant, with G = L L'
        lower = np.linalg.cholesky(gram)
        weights, _ = nnls(lower.T, np.linalg.solve(lower, right))
    else:
        weights = np.linalg.solve(gram, right)
    return weights, level - float(middle @ weights)
