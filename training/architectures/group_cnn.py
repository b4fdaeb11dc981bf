"""Convolutions equivariant under the eight rotations and mirrorings of the square (p4m).

A lens seen in a mirror is as good a lens; the logit of this network is the same for all eight
views by construction. Source: Cohen & Welling 2016, arXiv:1602.07576, equations 10 and 11.

A feature map over the group has channels (field, element); element e = 4 m + k stands for
"mirror in x if m, then rotate by k quarter turns". A filter of the group convolution is turned by
the element of the output, and its elements of the input are permuted accordingly.
"""

from __future__ import annotations

from typing import Literal, Self

import torch
from jaxtyping import Float, Int64
from pydantic import Field, PositiveInt, model_validator
from torch import Tensor, nn
from torch.nn import functional

from lenspipe.cutouts.base import Block
from training.architectures.layers import Shapes, check_size, only

INPUT: Literal["images"] = "images"
ELEMENTS = 8


class Parameters(Block):
    """lifting: side of the first filters (pixels, odd); fields: feature fields of each scale.

    A field is eight channels; a halving lies between two scales. convolutions: of each scale, one
    by default, the first scale's being the lifting one. rings: squares about the centre, one in
    another, that features are pooled in apart, so that where an arc lies counts as well; the
    outermost holds what is left of the stamp.
    """

    lifting: PositiveInt = 5
    fields: tuple[PositiveInt, ...] = Field(default=(5, 6, 8, 12), min_length=2)
    convolutions: tuple[PositiveInt, ...] | None = None
    rings: PositiveInt = 1
    dropout: float = Field(default=0.2, ge=0.0, lt=1.0)

    @model_validator(mode="after")
    def _one_number_a_scale(self) -> Self:
        if self.convolutions is not None and len(self.convolutions) != len(self.fields):
            raise ValueError(f"convolutions: expected {len(self.fields)}, as many as fields")
        return self


def turn(image: Tensor, element: int) -> Tensor:
    """`image` (..., y, x) under one element of the group."""
    mirrored = image.flip(-1) if element >= 4 else image
    return torch.rot90(mirrored, element % 4, dims=(-2, -1))


def multiply(first: int, second: int) -> int:
    """The element that does `second`, then `first`: a mirror turns a rotation round."""
    mirror1, quarter1 = divmod(first, 4)
    mirror2, quarter2 = divmod(second, 4)
    sign = -1 if mirror1 else 1
    return 4 * (mirror1 ^ mirror2) + (quarter1 + sign * quarter2) % 4


def source_elements(element: int) -> Int64[Tensor, " 8"]:
    """For each input element g, the index of element⁻¹ g: where the untransformed filter has it."""
    found = torch.empty(ELEMENTS, dtype=torch.int64)
    for g in range(ELEMENTS):
        found[multiply(element, g)] = g
    return found


def turned_index(inputs: int, elements: int, side: int) -> Int64[Tensor, "1 n"]:
    """Where each weight of a filter in its eight positions is taken from.

    From (input, input element, side, side), flat; to (element, input, input element, side, side),
    flat. elements: of the input, 1 for an image.
    """
    own = torch.arange(inputs * elements * side * side).reshape(inputs, elements, side, side)
    turned = []
    for element in range(ELEMENTS):
        index = turn(own, element)
        turned.append(index if elements == 1 else index[:, source_elements(element)])
    return torch.stack(turned).reshape(1, -1)


class GroupConvolution(nn.Module):
    """Same-size convolution, batch normalisation per field, ReLU.

    Input channels: bands (lifting) or fields × 8; output channels: fields × 8.
    """

    source: Tensor

    def __init__(self, inputs: int, fields: int, side: int, lifting: bool) -> None:
        super().__init__()
        elements = 1 if lifting else ELEMENTS
        self.weight = nn.Parameter(torch.empty(fields, inputs, elements, side, side))
        nn.init.kaiming_normal_(self.weight, nonlinearity="relu")
        self.norm = nn.BatchNorm2d(fields)
        self.fields, self.side = fields, side
        self.register_buffer("source", turned_index(inputs, elements, side), persistent=False)

    def filters(self) -> Float[Tensor, "out in side side"]:
        """The filters of an ordinary convolution: every filter in its eight positions."""
        source = self.source.expand(self.fields, -1)
        turned = self.weight.flatten(1).gather(1, source)  # one gather: a GPU waits for no loop
        return turned.reshape(self.fields * ELEMENTS, -1, self.side, self.side)

    def forward(self, x: Float[Tensor, "b c y x"]) -> Float[Tensor, "b out y x"]:
        """Fields over the group, not negative."""
        out = functional.conv2d(x, self.filters(), padding=self.side // 2)
        batch, _, rows, columns = out.shape
        by_field = out.reshape(batch, self.fields, ELEMENTS * rows, columns)
        return functional.relu(self.norm(by_field)).reshape(batch, -1, rows, columns)

    def folded(self) -> nn.Module:
        """The same as an ordinary convolution; see `layers.Foldable`."""
        with torch.no_grad():
            filters = self.filters()
        channels, inputs = filters.shape[:2]
        side = self.side
        layer = nn.Conv2d(inputs, channels, side, padding=side // 2, bias=False)
        norm = nn.BatchNorm2d(channels, eps=self.norm.eps)
        spread = {
            name: value.repeat_interleave(ELEMENTS) if value.ndim else value
            for name, value in self.norm.state_dict().items()
        }
        norm.load_state_dict(spread)
        layer.load_state_dict({"weight": filters})
        return nn.Sequential(layer, norm, nn.ReLU()).eval()


def squares_about_the_centre(rows: int, columns: int, rings: int) -> Float[Tensor, "ring yx"]:
    """1 where a pixel of the map is in the ring, 0 elsewhere; all eight views have the same."""
    y = (torch.arange(rows) - (rows - 1) / 2).abs()
    x = (torch.arange(columns) - (columns - 1) / 2).abs()
    away = torch.maximum(y[:, None], x).floor().clamp(max=rings - 1).flatten()
    return torch.stack([(away == ring).float() for ring in range(rings)])


class GroupCNN(nn.Module):
    """(batch, band, y, x) normalised pixels to logits (batch,), the same for all eight views."""

    rings: Tensor

    def __init__(self, p: Parameters, shape: tuple[int, ...]) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        before, lifting = shape[0], True
        for scale, fields in enumerate(p.fields):
            layers += [nn.AvgPool2d(2)] if scale else []
            for _ in range(p.convolutions[scale] if p.convolutions else 1):
                side = p.lifting if lifting else 3
                layers.append(GroupConvolution(before, fields, side, lifting))
                before, lifting = fields, False
        self.features = nn.Sequential(*layers)
        self.fields = p.fields[-1]
        divisor = 2 ** (len(p.fields) - 1)
        rings = squares_about_the_centre(shape[1] // divisor, shape[2] // divisor, p.rings)
        self.register_buffer("rings", rings, persistent=False)
        self.head = nn.Sequential(
            nn.Linear(2 * self.fields * p.rings, 32),
            nn.ReLU(),
            nn.Dropout(p.dropout),
            nn.Linear(32, 1),
        )

    def forward(self, x: Float[Tensor, "b band y x"]) -> Float[Tensor, " b"]:
        """Logits from each field's mean and maximum over the group and each ring of the stamp."""
        features = self.features(x).flatten(2)
        means, maxima = [], []
        for ring in self.rings:  # features are not negative, so that nothing outside is a maximum
            inside = (features * ring).reshape(x.shape[0], self.fields, -1)
            means.append(inside.sum(dim=2) / (ELEMENTS * ring.sum()))
            maxima.append(inside.amax(dim=2))
        pooled = torch.cat([*means, *maxima], dim=1)
        logits: Tensor = self.head(pooled)
        return logits.squeeze(1)


def build(parameters: Parameters, shapes: Shapes) -> nn.Module:
    """Network for stamps (band, y, x). The halvings must leave no remainder: with one,
    the grid has a preferred corner, and the symmetry is lost."""
    shape = only(shapes)
    divisor: int = 2 ** (len(parameters.fields) - 1)
    check_size(shape, divisor, smallest=2 * divisor * parameters.rings)
    return GroupCNN(parameters, shape)
