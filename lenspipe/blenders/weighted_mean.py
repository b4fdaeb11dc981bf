"""A mean of the logits with a weight per member."""

from __future__ import annotations

from typing import Literal

import numpy as np
from jaxtyping import Float64
from pydantic import Field, NonNegativeFloat, model_validator

from lenspipe.blenders import BlenderOptions, check_count


class Options(BlenderOptions):
    """weights: one per member, in their order; only their ratios matter."""

    kind: Literal["weighted_mean"] = "weighted_mean"
    weights: tuple[NonNegativeFloat, ...] = Field(min_length=1)

    @model_validator(mode="after")
    def _some(self) -> Options:
        if not sum(self.weights) > 0:
            raise ValueError("expected at least one weight above 0")
        return self

    def check_members(self, members: int) -> None:
        """One weight per member."""
        check_count("blender.weights", len(self.weights), members)


def blend(logits: Float64[np.ndarray, "n m"], options: Options) -> Float64[np.ndarray, " n"]:
    """Weighted mean over the members; a member of weight 0 still has to be finite."""
    weights = np.asarray(options.weights, np.float64)
    return np.asarray((logits * weights).sum(axis=1) / weights.sum())
