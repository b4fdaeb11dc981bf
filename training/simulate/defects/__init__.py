"""What spoils an image whatever is in it: one file per kind, with `apply(rng, image, seen)`.

The file's name is the kind. `apply` changes the observed image (band, y, x) in place, in the
units of its flux; seen: the conditions it was taken under.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import numpy as np

from lenspipe import registry
from training.simulate.observe import Conditions

if TYPE_CHECKING:
    from jaxtyping import Float32


def names() -> list[str]:
    """All kinds."""
    return registry.names(sys.modules[__name__])


def apply(
    rng: np.random.Generator, kind: str, image: Float32[np.ndarray, "band y x"], seen: Conditions
) -> None:
    """Spoil the image. InputError: no such kind."""
    registry.load(sys.modules[__name__], kind, "kind of defect").apply(rng, image, seen)
