"""From rows to a batch as the network sees it: gathered, merged with arcs, augmented."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Generator, Tensor

from training import augmentations
from training.data import Examples
from training.merging import Arcs, Merger
from training.recipe import MemberRecipe

Tensors = Mapping[str, Tensor]  # input name -> rows of it


class Feed:
    """Batches of one training set on one device."""

    def __init__(
        self, recipe: MemberRecipe, examples: Examples, where: torch.device, arcs: Arcs | None
    ) -> None:
        self._where = where
        self._inputs, self._labels = place(examples, where)
        self._scales = {name: spec.pixel_scale_arcsec for name, spec in examples.specs.items()}
        steps = recipe.augmentation.in_order() if examples.specs else ()
        self._augment = augmentations.build(steps)
        self._merger = None
        if recipe.merging is not None and arcs is not None:
            self._merger = Merger(recipe.merging, arcs, examples)

    def batch(
        self, rows: Int64[Tensor, " batch"], generator: Generator
    ) -> tuple[Tensors, Float[Tensor, " batch"]]:
        """Inputs by name and labels of some rows, each by its own draws."""
        labels = self._labels[rows]
        if self._merger is None:
            batch = take(self._inputs, rows, self._where)
        else:
            rows, places = self._merger.rows(rows, labels, generator)
            batch = self._merger.merge(take(self._inputs, rows, self._where), places, generator)
        return self._augment(batch, self._scales, generator), labels


def place(examples: Examples, where: torch.device) -> tuple[Tensors, Float[Tensor, " n"]]:
    """Inputs on the device where they take at most half of its free memory, else where they are;
    labels on the device."""
    inputs = {name: torch.from_numpy(array) for name, array in examples.inputs.items()}
    labels = torch.from_numpy(examples.labels.astype(np.float32)).to(where)
    size = sum(tensor.nbytes for tensor in inputs.values())
    if where.type == "cuda" and size < torch.cuda.mem_get_info(where)[0] // 2:
        inputs = {name: tensor.to(where) for name, tensor in inputs.items()}
    return inputs, labels


def take(inputs: Tensors, rows: Int64[Tensor, " batch"], where: torch.device) -> dict[str, Tensor]:
    """A batch on the device."""
    return {
        name: tensor[rows.to(tensor.device)].to(where, non_blocking=True)
        for name, tensor in inputs.items()
    }
