"""The plain mean of the members' logits: nothing is fitted, nothing can be overfitted."""

from __future__ import annotations

from typing import Any

import numpy as np
from jaxtyping import Bool, Float64

from lenspipe.cutouts.base import Block


class Parameters(Block):
    """None."""


def fit(
    p: Parameters, logits: Float64[np.ndarray, "n member"], positive: Bool[np.ndarray, " n"]
) -> dict[str, Any]:
    """Options of the blender."""
    del p, logits, positive
    return {}
