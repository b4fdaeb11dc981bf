"""A trained network's logit as the mean over views of the stamp: turned and mirrored."""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from training.recipe import Views

_QUARTER = 90.0


class Viewed(nn.Module):
    """A network of (batch, band, y, x) images to logits (batch,), as the mean of its logits over
    views that all of its images share. One view after the other: batches stay as large as they
    are."""

    def __init__(self, network: nn.Module, views: Views) -> None:
        super().__init__()
        self.network = network
        self.views = views

    def forward(self, *images: Float[Tensor, "b band y x"]) -> Float[Tensor, " b"]:
        """Mean logits."""
        logits = [
            self.network(*(seen(image, degrees, mirrored) for image in images))
            for degrees, mirrored in self._each()
        ]
        return torch.stack(logits).mean(dim=0)

    def _each(self) -> Iterator[tuple[float, bool]]:
        for mirrored in (False, True)[: 1 + self.views.mirrored]:
            for degrees in self.views.degrees:
                yield degrees, mirrored


def seen(
    image: Float[Tensor, "b band y x"], degrees: float, mirrored: bool
) -> Float[Tensor, "b band y x"]:
    """The stamps mirrored in x where asked for, then turned from x to y about their middle."""
    view = image.flip(-1) if mirrored else image
    quarters, rest = divmod(degrees % 360.0, _QUARTER)
    if quarters:
        view = torch.rot90(view, int(quarters), (-1, -2))
    return _turned(view, rest) if rest else view


def _turned(image: Float[Tensor, "b band y x"], degrees: float) -> Float[Tensor, "b band y x"]:
    size = image.shape[-1]
    line = torch.arange(size, dtype=torch.float32, device=image.device) - 0.5 * (size - 1)
    y, x = torch.meshgrid(line, line, indexing="ij")
    cosine, sine = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    # Where a pixel of the view comes from, in grid_sample's -1 to 1 from edge to edge.
    source = torch.stack([cosine * x + sine * y, cosine * y - sine * x], dim=-1) * (2.0 / size)
    return functional.grid_sample(
        image,
        source.expand(image.shape[0], -1, -1, -1),
        mode="bicubic",
        padding_mode="reflection",
        align_corners=False,
    )
