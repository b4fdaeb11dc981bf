"""The plain mean of the members' logits: nothing is fitted, nothing can be overfitted."""

from __future__ import annotations

from typing import Any

import numpy as np
from jaxtyping import Bool, Float64
from onnx import NodeProto

from lenspipe.blenders.mean import Options
from lenspipe.cutouts.base import Block
from training.blend.onnx_graph import sum_of


class Parameters(Block):
    """None."""


def fit(
    p: Parameters, logits: Float64[np.ndarray, "n member"], positive: Bool[np.ndarray, " n"]
) -> dict[str, Any]:
    """Options of the blender."""
    del p, logits, positive
    return {}


def nodes(options: Options, members: int) -> list[NodeProto]:
    """The blend in ONNX."""
    del options
    return sum_of([1.0 / members] * members)
