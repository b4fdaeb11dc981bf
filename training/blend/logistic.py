"""Logistic regression on the members' logits: stacking (Wolpert 1992, Neural Networks 5, 241)."""

from __future__ import annotations

from typing import Any

import numpy as np
from jaxtyping import Bool, Float64
from pydantic import NonNegativeFloat

from lenspipe.cutouts.base import Block
from training.blend.logistic_fit import logistic_fit
from training.blend.onnx_graph import weighted_sum as nodes

__all__ = ["Parameters", "fit", "nodes"]


class Parameters(Block):
    """ridge: strength of the pull towards the plain mean; non_negative: allow no weight below 0, so
    that no member is ever believed the less for being sure of a lens."""

    ridge: NonNegativeFloat = 1e-3
    non_negative: bool = True


def fit(
    p: Parameters, logits: Float64[np.ndarray, "n member"], positive: Bool[np.ndarray, " n"]
) -> dict[str, Any]:
    """Options of the blender."""
    lowest = 0.0 if p.non_negative else None
    weights, intercept = logistic_fit(logits, positive, p.ridge, lowest)
    return {"weights": weights.tolist(), "intercept": intercept}
