"""Focal loss: well-classified examples count little, so hard negatives set the gradient.

Source: Lin et al. 2017, arXiv:1708.02002, equation 5.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from pydantic import Field, NonNegativeFloat
from torch import Tensor
from torch.nn import functional

from lenspipe.cutouts.base import Block


class Parameters(Block):
    """gamma: how fast the weight of an example falls with its probability of being right;
    alpha: weight of lenses, 1 - alpha that of the others."""

    gamma: NonNegativeFloat = 2.0
    alpha: float = Field(default=0.5, gt=0.0, lt=1.0)


def loss(
    p: Parameters, logits: Float[Tensor, " b"], labels: Float[Tensor, " b"]
) -> Float[Tensor, ""]:
    """Mean over the batch."""
    cross_entropy = functional.binary_cross_entropy_with_logits(logits, labels, reduction="none")
    # Logarithm of the probability given to the wrong label. A power of that probability itself has
    # no gradient where it is so small that one less it is one, and gamma is below 1.
    log_wrong = functional.logsigmoid((1.0 - 2.0 * labels) * logits)
    weight = p.alpha * labels + (1.0 - p.alpha) * (1.0 - labels)
    return (weight * torch.exp(p.gamma * log_wrong) * cross_entropy).mean()
