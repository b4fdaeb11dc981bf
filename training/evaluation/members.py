"""How differently the members of an ensemble err."""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Bool, Float

_MODULE = "training.blend.diversity"


def diversity(
    logits: Float[np.ndarray, "n member"],
    positive: Bool[np.ndarray, " n"],
    names: Sequence[str],
    fpr: float,
) -> dict[str, Any] | None:
    """What `training.blend.diversity` measures of the members; None for one member alone."""
    if logits.shape[1] < 2 or importlib.util.find_spec(_MODULE) is None:
        return None
    found: dict[str, Any] = importlib.import_module(_MODULE).diversity(
        logits, positive, list(names), fpr
    )
    return found
