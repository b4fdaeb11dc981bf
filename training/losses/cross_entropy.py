"""Binary cross-entropy, with label smoothing and a weight for lenses."""

from __future__ import annotations

import torch
from jaxtyping import Float
from pydantic import Field, PositiveFloat
from torch import Tensor
from torch.nn import functional

from lenspipe.cutouts.base import Block


class Parameters(Block):
    """smoothing: labels become smoothing / 2 and 1 - smoothing / 2, which keeps logits finite on a
    separable training set; positive_weight: weight of a lens against a non-lens."""

    smoothing: float = Field(default=0.0, ge=0.0, lt=1.0)
    positive_weight: PositiveFloat = 1.0


def loss(
    p: Parameters, logits: Float[Tensor, " b"], labels: Float[Tensor, " b"]
) -> Float[Tensor, ""]:
    """Mean over the batch."""
    target = labels * (1.0 - p.smoothing) + 0.5 * p.smoothing
    weight = torch.full_like(logits[:1], p.positive_weight)
    return functional.binary_cross_entropy_with_logits(logits, target, pos_weight=weight)
