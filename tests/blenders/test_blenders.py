"""What each blender computes; what all have in common is in tests/conformance."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from lenspipe import blenders
from lenspipe.errors import InputError

LOGITS = np.array([[1.0, 2.0, 6.0], [-4.0, 0.0, 1.0]], np.float32)


@pytest.mark.parametrize(
    ("content", "wanted"),
    [
        ({"kind": "mean"}, [3.0, -1.0]),
        ({"kind": "weighted_mean", "weights": [1, 1, 2]}, [3.75, -0.5]),
        ({"kind": "weighted_mean", "weights": [10, 10, 20]}, [3.75, -0.5]),
        ({"kind": "logistic", "weights": [1, -0.5, 0.5], "intercept": 2.0}, [5.0, -1.5]),
        ({"kind": "ridge", "weights": [1, -0.5, 0.5], "intercept": 2.0}, [5.0, -1.5]),
    ],
)
def test_by_hand(content: dict[str, Any], wanted: list[float]) -> None:
    options = blenders.parse(content, 3)
    np.testing.assert_allclose(blenders.blend(LOGITS, options), wanted)


@pytest.mark.parametrize("weights", [[0.0, 0.0, 0.0], [1.0, -1.0, 1.0], []])
def test_a_mean_needs_weights_that_make_one(weights: list[float]) -> None:
    with pytest.raises(InputError, match="blender"):
        blenders.parse({"kind": "weighted_mean", "weights": weights}, 3)
