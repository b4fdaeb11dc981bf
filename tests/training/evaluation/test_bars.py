"""Bars of completeness: what stands below them can be read."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from training.data import Examples
from training.evaluation.completeness import by_truth
from training.evaluation.pictures import bars, style


@pytest.fixture
def counted(test_set: Examples) -> Examples:
    """With a number of images for each lens, and arcs of every size."""
    images = np.where(test_set.positive, 1.0 + np.arange(2000) % 6, np.nan)
    area = np.where(test_set.positive, np.arange(2000) % 40 / 100.0, np.nan)
    truth = {"n_images": images, "arc_area_2sigma_fraction": area}
    return replace(test_set, truth={**test_set.truth, **truth})


def drawn(test: Examples, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Axes]:
    """The panels, laid out."""
    kept: list[Figure] = []

    def write(path: Path, size: tuple[float, float], draw: Callable[[Figure], None]) -> None:
        def kept_too(figure: Figure) -> None:
            draw(figure)
            kept.append(figure)

        style.write(path, size, kept_too)

    monkeypatch.setattr(bars, "write", write)
    bars.draw_completeness(tmp_path / "bins.png", by_truth(np.ones(2000, bool), test))
    kept[0].draw_without_rendering()
    return kept[0].axes


def test_bins_of_counts_are_called_by_their_number(
    counted: Examples, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = by_truth(np.ones(2000, bool), counted)["n_images"]
    assert {name: m.n_positives for name, m in found.items()} == {
        **dict.fromkeys("1234", 100),
        "5 or more": 200,
    }
    [panel] = [a for a in drawn(counted, tmp_path, monkeypatch) if "images" in a.get_xlabel()]
    assert [t.get_text() for t in panel.get_xticklabels()] == ["1", "2", "3", "4", "≥ 5"]


def test_names_below_bars_do_not_run_into_each_other(
    counted: Examples, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two lines of text, each ending below its bar, lie apart along or across their direction."""
    for panel in drawn(counted, tmp_path, monkeypatch):
        labels = panel.get_xticklabels()
        slants = [np.radians(label.get_rotation()) for label in labels]
        for label in labels:
            label.set_rotation(0)
        boxes = [label.get_window_extent() for label in labels]
        places = panel.transData.transform([(x, 0.0) for x in panel.get_xticks()])[:, 0]
        for k, apart in enumerate(np.diff(places)):
            wide = 0.5 * (boxes[k].width + boxes[k + 1].width)
            across, along = apart * np.sin(slants[k]), apart * np.cos(slants[k])
            assert across > boxes[k].height or along > wide, labels[k].get_text()
