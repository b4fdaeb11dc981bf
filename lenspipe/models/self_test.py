"""A fixed input and the logits that belong to it, so that a file can be checked where it runs.

The input needs no random generator, whose stream could change: pixel k holds the fractional part
of k times the golden ratio, brought to ±scale.
"""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import onnx
from jaxtyping import Float32

from lenspipe.errors import InputError
from lenspipe.models.card import ModelCard, SelfTest, write_card
from lenspipe.models.session import Member, input_shapes

GOLDEN = (math.sqrt(5.0) - 1.0) / 2.0
ROWS = 4
# Logits on another CPU or with TF32 off on a GPU: float32 sums in another order.
TOLERANCE = 1e-3


def images(card: ModelCard, rows: int, scale: float) -> dict[str, Float32[np.ndarray, "n ..."]]:
    """The input that the card's logits belong to: key of `Member.predict` -> array."""
    made = {}
    for key, shape in input_shapes(card).items():
        count = rows * math.prod(shape)
        weyl = np.modf(np.arange(1, count + 1, dtype=np.float64) * GOLDEN)[0]
        made[key] = ((2.0 * weyl - 1.0) * scale).astype(np.float32).reshape(rows, *shape)
    return made


def add(path: str | Path, scale: float = 1.0, tolerance: float = TOLERANCE) -> ModelCard:
    """Run the file on the CPU and write what it gave into its card."""
    member = Member.load(path, "cpu", batch_size=ROWS)
    logits = member.predict(images(member.card, ROWS, scale))
    if not np.isfinite(logits).all():
        raise InputError(f"model {path}", "finite logits on the self-test input", logits)
    test = SelfTest(scale=scale, logits=tuple(map(float, logits)), tolerance=tolerance)
    card = member.card.model_copy(update={"self_test": test})
    return write_card(onnx.load(str(path)), card, path)


def difference(member: Member) -> float | None:
    """Largest difference from the card's logits, None without a self-test in the card.

    InputError where it is above the card's tolerance.
    """
    test = member.card.self_test
    if test is None:
        return None
    found = member.predict(images(member.card, len(test.logits), test.scale))
    worst = float(np.max(np.abs(found - np.asarray(test.logits, np.float32))))
    if not worst <= test.tolerance:
        raise InputError(
            f"model {member.path}: self-test", f"its logits within {test.tolerance:g}", worst
        )
    return worst
