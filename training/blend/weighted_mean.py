"""A mean whose weights are not negative and sum to one, by logistic regression."""

from __future__ import annotations

from typing import Any

import numpy as np
from jaxtyping import Bool, Float64
from onnx import NodeProto
from pydantic import NonNegativeFloat

from lenspipe.blenders.weighted_mean import Options
from lenspipe.cutouts.base import Block
from training.blend.logistic_fit import logistic_fit
from training.blend.onnx_graph import sum_of


class Parameters(Block):
    """ridge: strength of the pull towards the plain mean."""

    ridge: NonNegativeFloat = 1e-3


def fit(
    p: Parameters, logits: Float64[np.ndarray, "n member"], positive: Bool[np.ndarray, " n"]
) -> dict[str, Any]:
    """Options of the blender."""
    weights, _ = logistic_fit(logits, positive, p.ridge, lowest=0.0)
    total = weights.sum()
    if total <= 0.0:  # no member ranks lenses above the others: none is better than another
        weights, total = np.ones(len(weights)), float(len(weights))
    return {"weights": (weights / total).tolist()}


def nodes(options: Options, members: int) -> list[NodeProto]:
    """The blend in ONNX."""
    del members
    total = sum(options.weights)
    return sum_of([weight / total for weight in options.weights])
