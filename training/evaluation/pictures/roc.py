"""ROC curves, false-positive rate on a logarithmic axis."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from training.evaluation.pictures.style import COLOURS, GREY, write


def draw(path: Path, reports: Mapping[str, Mapping[str, Any]]) -> None:
    """One curve per model; the shaded part is that of fewer than ten false positives."""

    def on(figure: Any) -> None:
        axes = figure.subplots()
        negatives = {r["figures"]["auroc"].n_negatives for r in reports.values()}
        lowest = 0.5 / max(negatives)
        for k, (name, report) in enumerate(reports.items()):
            curve = report["curves"]["roc"]
            x = np.maximum(curve["fpr"], lowest)
            label = f"{name} (AUROC {report['figures']['auroc'].value:.4f})"
            axes.plot(
                x,
                curve["tpr"],
                label=label,
                drawstyle="steps-post",
                color=COLOURS[k % len(COLOURS)],
            )
        axes.axvspan(lowest, min(10.0 / max(negatives), 1.0), color=GREY, alpha=0.12, linewidth=0)
        axes.set(xscale="log", xlim=(lowest, 1.0), ylim=(0.0, 1.01))
        axes.set(xlabel="false-positive rate", ylabel="true-positive rate")
        axes.legend(loc="lower right")

    write(path, (7.2, 4.8), on)
