"""An ensemble that was fitted: kept, so that its page and its file tell of the same one.

A cascade's first member may be chosen by times measured there and then; another call on another day
would choose another.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Float32

from lenspipe import blenders
from lenspipe.models.card import Calibration, Threshold
from lenspipe.models.ensemble_file import Cascade
from training.blend.cascade import cascaded
from training.workspace import write_whole


@dataclass(frozen=True)
class Blended:
    """seconds: of each member for one batch, by which the cascade was chosen; empty without one."""

    blender: blenders.BlenderOptions
    calibration: Calibration
    thresholds: tuple[Threshold, ...]
    cascade: Cascade | None
    seconds: Mapping[str, float]

    def scores(
        self, names: Sequence[str], columns: Float[np.ndarray, "n member"]
    ) -> Float32[np.ndarray, " n"]:
        """What rows rank by, from all members' logits, with the cascade where there is one."""
        whole = blenders.blend(columns, self.blender)
        return whole if self.cascade is None else cascaded(self.cascade, names, columns, whole)


def keep(blended: Blended, path: Path) -> None:
    """Write it down, every number as it is."""
    content = {
        "blender": blended.blender.model_dump(mode="json"),
        "calibration": blended.calibration.model_dump(mode="json"),
        "thresholds": [threshold.model_dump(mode="json") for threshold in blended.thresholds],
        "cascade": None if blended.cascade is None else blended.cascade.model_dump(mode="json"),
        "seconds": dict(blended.seconds),
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, json.dumps(content, indent=1))


def kept(path: Path, members: int) -> Blended | None:
    """What was kept there for so many members; None where nothing was."""
    if not path.exists():
        return None
    content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    cascade = content["cascade"]
    return Blended(
        blenders.parse(content["blender"], members),
        Calibration.model_validate(content["calibration"]),
        tuple(Threshold.model_validate(one) for one in content["thresholds"]),
        None if cascade is None else Cascade.model_validate(cascade),
        content["seconds"],
    )
