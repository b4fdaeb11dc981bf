"""Precision, recall, accuracy, F1 and F_beta against the threshold."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lenspipe.models.card import Threshold
from training.evaluation.pictures.style import COLOURS, GREY, write


def draw(path: Path, curve: Mapping[str, Any], thresholds: Sequence[Threshold] = ()) -> None:
    """curve: of `curves.against_threshold`. thresholds: marked by dotted lines."""
    names = {
        "precision": "precision",
        "recall": "recall",
        "accuracy": "accuracy",
        "f1": "F1",
        "f_beta": f"Fβ, β = {curve['beta']:g}",
    }

    def on(figure: Any) -> None:
        axes = figure.subplots()
        for (key, label), colour in zip(names.items(), COLOURS, strict=False):
            axes.plot(curve["threshold"], curve[key], label=label, color=colour)
        for k, t in enumerate(sorted(thresholds, key=lambda t: t.score)):
            axes.axvline(t.score, color=GREY, linestyle=":", linewidth=1.2)
            axes.annotate(
                f"FPR {t.fpr:g}",
                (t.score, 0.03 + 0.05 * (k % 4)),
                xytext=(-4, 0),
                ha="right",
                textcoords="offset points",
                fontsize=9,
                color=GREY,
            )
        axes.set(xlabel="threshold (score, logit)", ylim=(0.0, 1.01))
        axes.set_ylabel(f"on this set (lenses: {100 * curve['prevalence']:.0f}%)")
        axes.set_xlim(curve["threshold"][0], curve["threshold"][-1])
        figure.legend(loc="outside upper center", ncols=5)

    write(path, (7.2, 4.8), on)
