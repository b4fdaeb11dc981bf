"""The plain mean of the logits, that is the log of the geometric mean of the odds."""

from __future__ import annotations

from typing import Literal

import numpy as np
from jaxtyping import Float64

from lenspipe.blenders import BlenderOptions


class Options(BlenderOptions):
    """Nothing to set."""

    kind: Literal["mean"] = "mean"


def blend(logits: Float64[np.ndarray, "n m"], options: Options) -> Float64[np.ndarray, " n"]:  # noqa: ARG001 - every blender takes options
    """Mean over the members."""
    return np.asarray(logits.mean(axis=1))
