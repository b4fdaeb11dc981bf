"""A whole network: raw flux in, logit out, with the normalisation inside."""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from lenspipe.errors import InputError
from lenspipe.models import normalise
from training import architectures
from training.recipe import MemberRecipe, Named


class Finder(nn.Module):
    """(batch, band, y, x) flux to logits (batch,). What is exported is this, as it is trained."""

    def __init__(self, normalisation: Named, network: nn.Module) -> None:
        super().__init__()
        self.function = normalisation.name
        self.parameters_of_function: dict[str, Any] = normalisation.parameters
        self.network = network

    def forward(self, image: Float[Tensor, "b band y x"]) -> Float[Tensor, " b"]:
        """Logits."""
        pixels = normalise.apply(self.function, self.parameters_of_function, image, torch)
        logits: Tensor = self.network(pixels)
        return logits


def build(recipe: MemberRecipe, shape: tuple[int, ...]) -> nn.Module:
    """The recipe's network for inputs of `shape`: (band, y, x) flux or (feature,)."""
    wanted = "features" if recipe.task == "photometry" else "images"
    if wanted != architectures.load(recipe.architecture.name).INPUT:
        raise InputError(
            "architecture.name", f"one that takes {wanted}", repr(recipe.architecture.name)
        )
    network = architectures.build(recipe.architecture.name, recipe.architecture.parameters, shape)
    if recipe.normalisation is None:
        return network
    check_normalisation(recipe.normalisation, bands=shape[0])
    return Finder(recipe.normalisation, network)


def check_normalisation(normalisation: Named, bands: int) -> None:
    """InputError where the graph cannot hold it, or its parameters do not fit the bands."""
    normalise.parse(normalisation.name, normalisation.parameters).check_bands(bands)
    if normalisation.name in normalise.ARRAY_ONLY:
        known = sorted(set(normalise.FUNCTIONS) - normalise.ARRAY_ONLY)
        raise InputError(
            "normalisation.name",
            f"one that the graph can hold ({', '.join(known)})",
            repr(normalisation.name),
        )
