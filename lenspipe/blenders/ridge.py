"""Stacking by ridge regression on the the logits (Hoerl & Kennard 1970, Technometrics 12, 55)."""

from __future__ import annotations

from typing import Literal

import numpy as np
from jaxtyping import Float64
from pydantic import Field

from lenspipe.blenders import BlenderOptions, check_count


class Options(BlenderOptions):
    """weights: one per member, in their order, of any sign. The score is no logit: a calibration
    makes a probability of it."""

    kind: Literal["ridge"] = "ridge"
    weights: tuple[float, ...] = Field(min_length=1)
    intercept: float = 0.0

    def check_members(self, members: int) -> None:
        """One weight per member."""
        check_count("blender.weights", len(self.weights), members)


def blend(logits: Float64[np.ndarray, "n m"], options: Options) -> Float64[np.ndarray, " n"]:
    """Intercept plus the weighted sum over the members."""
    weights = np.asarray(options.weights, np.float64)
    return np.asarray((logits * weights).sum(axis=1) + options.intercept)
