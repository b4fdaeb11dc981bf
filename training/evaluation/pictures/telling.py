"""How well real stamps and mocks are told apart, by features and by each statistic."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from training.evaluation.pictures.style import COLOURS, GREY, write

_SHOWN = 14


def draw(path: Path, found: Mapping[str, Any]) -> None:
    """found: one comparison of `realism.judge`."""
    probes = {
        "all members": found["features"],
        **found["members"],
        "statistics": found["statistics"],
    }

    def on(figure: Any) -> None:
        left, right = figure.subplots(1, 2)
        place = np.arange(len(probes))[::-1]
        values = np.asarray([p["auroc"] for p in probes.values()])
        ends = np.asarray([p["interval"] for p in probes.values()]).T
        left.errorbar(
            values, place, xerr=np.maximum([values - ends[0], ends[1] - values], 0), fmt="o",
            capsize=3, color=COLOURS[0],
        )  # fmt: skip
        left.set_yticks(place, list(probes))
        left.set(xlim=(0.4, 1.01), xlabel="AUROC of the probe", ylim=(-0.6, len(probes) - 0.4))
        left.axvline(0.5, color=GREY, linestyle="--", linewidth=1)
        shown = found["telling"][:_SHOWN]
        bars = np.arange(len(shown))[::-1]
        right.barh(
            bars, [one["auroc"] - 0.5 for one in shown], left=0.5, color=COLOURS[1], alpha=0.8
        )
        right.set_yticks(bars, [one["name"] for one in shown])
        right.axvline(0.5, color=GREY, linestyle="--", linewidth=1)
        right.set(xlim=(0.0, 1.0), xlabel="real above mock, one statistic alone")

    write(path, (11.0, 4.8), on)
