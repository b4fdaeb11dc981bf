"""Augmentations by file name: random changes of training stamps, on the device that they are on.

Each file has `Parameters`, `STILL` (parameters under which nothing changes), `KEEPS_FLUX` (whether
a source inside the stamp keeps its flux) and `apply(parameters, images, scales, generator)`.
Several inputs, on pixels of different size, show the same sky: one draw per source, in arcsec,
moves them all.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from pydantic import ValidationError
from torch import Generator, Tensor

from lenspipe import registry
from lenspipe.problems import first_problem

# Input name -> (n, band, y, x) flux, and -> arcsec per pixel.
Images = Mapping[str, Tensor]
Scales = Mapping[str, float]
Step = tuple[str, Mapping[str, Any]]
Augment = Callable[[Images, Scales, Generator], dict[str, Tensor]]


def names() -> list[str]:
    """Every augmentation there is."""
    return registry.names(sys.modules[__name__])


def parse(steps: Sequence[Step]) -> list[tuple[Any, Any]]:
    """The file of each step and its parameters, checked; InputError names the key."""
    return [_parsed(place, name, values) for place, (name, values) in enumerate(steps)]


def build(steps: Sequence[Step]) -> Augment:
    """The augmentations of a recipe, by name and parameters, as one function; applied in order.

    The generator lives on the images' device. Every input has the same sources in the same rows.
    """
    parsed = parse(steps)

    def augment(images: Images, scales: Scales, generator: Generator) -> dict[str, Tensor]:
        changed = dict(images)
        for module, parameters in parsed:
            changed = module.apply(parameters, changed, scales, generator)
        return changed

    return augment


def _parsed(place: int, name: str, values: Mapping[str, Any]) -> tuple[Any, Any]:
    module = registry.load(sys.modules[__name__], name, f"augmentation.{place}.name")
    try:
        return module, module.Parameters.model_validate(dict(values))
    except ValidationError as error:
        raise first_problem(error, f"augmentation.{place}.parameters") from error
