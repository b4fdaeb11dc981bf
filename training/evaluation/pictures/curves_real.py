"""Recovery of painted arcs on real pixels, against their S/N and over S/N and Einstein radius."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from training.evaluation.injection import SNR_EDGES, TARGET_SNR, THETA_E_EDGES
from training.evaluation.pictures.style import COLOURS, COMPLETENESS_MAP, GREY, write


def draw(path: Path, found: Mapping[str, Any]) -> None:
    """found: of `injection.recovered`."""

    def on(figure: Any) -> None:
        left, right = figure.subplots(1, 2, width_ratios=(1, 1.15))
        _curve(left, found)
        image = _table(right, found)
        figure.colorbar(image, ax=right, label="true-positive rate", shrink=0.85)

    write(path, (11.5, 4.6), on)


def _curve(axes: Any, found: Mapping[str, Any]) -> None:
    names = [name for name in found["tpr"] if name.startswith("snr ") and "," not in name]
    place = np.arange(len(names))
    values = np.asarray([found["tpr"][name]["value"] for name in names])
    ends = np.asarray([found["tpr"][name]["interval"] for name in names]).T
    axes.errorbar(
        place, values, np.maximum([values - ends[0], ends[1] - values], 0), fmt="o-", capsize=3,
        color=COLOURS[0],
    )  # fmt: skip
    for k, name in enumerate(names):
        axes.annotate(str(found["tpr"][name]["lenses"]), (k, 1.03), ha="center", fontsize=8.5)
    axes.axhline(0.8, color=GREY, linestyle=":", linewidth=1)
    axes.set_xticks(place, [_short(name[4:]) for name in names], fontsize=9)
    axes.set(ylim=(0.0, 1.1), xlabel=f"S/N of the arcs, {found['band']}")
    axes.set_ylabel(f"true-positive rate at FPR {found['fpr']:g} of real galaxies")


def _table(axes: Any, found: Mapping[str, Any]) -> Any:
    snr, theta = list(pairwise(SNR_EDGES)), list(pairwise(THETA_E_EDGES))
    values = np.full((len(theta), len(snr)), np.nan)
    for name, rate in found["tpr"].items():
        if "," not in name:
            continue
        column, row = (float(part.split()[1]) for part in name.split(", "))
        k = [low for low, _ in theta].index(row), [low for low, _ in snr].index(column)
        values[k] = rate["value"]
        dark = rate["value"] < 0.6
        text = f"{rate['value']:.2f}\n({rate['lenses']})"
        axes.annotate(
            text, k[::-1], ha="center", va="center", fontsize=8, color="white" if dark else "black"
        )
    image = axes.imshow(
        values, origin="lower", aspect="auto", cmap=COMPLETENESS_MAP, vmin=0, vmax=1
    )
    axes.set_xticks(np.arange(len(snr)), [_short(f"{a:g} to {b:g}") for a, b in snr], fontsize=9)
    axes.set_yticks(np.arange(len(theta)), [f"{a:g}–{b:g}" for a, b in theta])
    axes.set(xlabel=f"S/N of the arcs, {found['band']}", ylabel="Einstein radius (arcsec)")
    axes.axvline([a for a, _ in snr].index(TARGET_SNR) - 0.5, color="white", linewidth=1)
    axes.grid(visible=False)
    return image


def _short(name: str) -> str:
    low, _, high = name.partition(" to ")
    return f"{low}–{high}" if high and float(high) < 1e8 else f"≥ {low.split()[0]}"
