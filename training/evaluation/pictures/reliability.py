"""Reliability diagram: fraction of lenses against the probability that was said."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from training.evaluation.pictures.style import COLOURS, GREY, write


def draw(path: Path, found: Mapping[str, Any]) -> None:
    """found: of `reliability.reliability`. Below: how many sources stand behind each point."""

    def on(figure: Any) -> None:
        upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=(3.2, 1))
        bins = found["bins"]
        said = np.asarray([b["mean_probability"] for b in bins])
        seen = np.asarray([b["fraction_of_lenses"] for b in bins])
        ends = np.asarray([b["interval"] for b in bins]).T
        upper.plot([0, 1], [0, 1], color=GREY, linestyle="--", linewidth=1, label="perfect")
        upper.errorbar(
            said, seen, np.abs(ends - seen), fmt="o-", color=COLOURS[0], markersize=4, capsize=2,
            label=f"ECE {found['ece']:.4f}",
        )  # fmt: skip
        upper.set(ylabel="fraction of lenses", xlim=(0, 1), ylim=(0, 1.01))
        upper.legend(loc="upper left")
        lower.bar(said, [b["n"] for b in bins], width=0.8 / len(bins), color=COLOURS[0], alpha=0.6)
        lower.set(yscale="log", xlabel="calibrated probability", ylabel="sources")

    write(path, (6.4, 5.6), on)
