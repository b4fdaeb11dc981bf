"""A whole network: raw flux in, logit out, with the normalisation inside."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from lenspipe.errors import InputError
from lenspipe.models import normalise
from training import architectures
from training.architectures.layers import Shapes
from training.recipe import MemberRecipe, Named


class Finder(nn.Module):
    """(batch, band, y, x) flux of each input, in the order of the shapes that it was built for, to
    logits (batch,). What is exported is this, as it is trained."""

    def __init__(self, normalisations: Sequence[Named], network: nn.Module) -> None:
        super().__init__()
        self.normalisations = tuple(normalisations)
        self.network = network

    def forward(self, *images: Float[Tensor, "b band y x"]) -> Float[Tensor, " b"]:
        """Logits."""
        pixels = [
            normalise.apply(function.name, function.parameters, image, torch)
            for function, image in zip(self.normalisations, images, strict=True)
        ]
        logits: Tensor = self.network(*pixels)
        return logits


def build(recipe: MemberRecipe, shapes: Shapes) -> nn.Module:
    """The recipe's network for inputs by name: (band, y, x) flux or (feature,)."""
    check_architecture(recipe)
    network = architectures.build(recipe.architecture.name, recipe.architecture.parameters, shapes)
    if recipe.normalisation is None:
        return network
    chosen = normalisation_of(recipe.normalisation, tuple(shapes))
    for name, shape in shapes.items():
        check_normalisation(chosen[name], bands=shape[0])
    return Finder([chosen[name] for name in shapes], network)


def check_architecture(recipe: MemberRecipe) -> None:
    """InputError: no such architecture, one for another task, or parameters that will not do."""
    wanted = "features" if recipe.task == "photometry" else "images"
    name, parameters = recipe.architecture.name, recipe.architecture.parameters
    if wanted != architectures.load(name).INPUT:
        raise InputError("architecture.name", f"one that takes {wanted}", repr(name))
    architectures.parse(name, parameters)


def normalisation_of(
    normalisation: Named | Mapping[str, Named], inputs: Sequence[str]
) -> dict[str, Named]:
    """The normalisation of each input: one for all of them, or each its own by name."""
    if isinstance(normalisation, Named):
        return dict.fromkeys(inputs, normalisation)
    if set(normalisation) != set(inputs):
        raise InputError(
            "normalisation",
            f"one block, or one for each of {', '.join(inputs)}",
            ", ".join(normalisation),
        )
    return dict(normalisation)


def check_normalisation(normalisation: Named, bands: int) -> None:
    """InputError where the graph cannot hold it, or its parameters do not fit the bands."""
    parse_normalisation(normalisation).check_bands(bands)


def parse_normalisation(normalisation: Named) -> normalise.Parameters:
    """Its parameters. InputError: no such one, one that the graph cannot hold, or others."""
    parsed = normalise.parse(normalisation.name, normalisation.parameters)
    if normalisation.name in normalise.ARRAY_ONLY:
        known = sorted(set(normalise.FUNCTIONS) - normalise.ARRAY_ONLY)
        raise InputError(
            "normalisation.name",
            f"one that the graph can hold ({', '.join(known)})",
            repr(normalisation.name),
        )
    return parsed
