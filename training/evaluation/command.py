"""`python -m training evaluate RECIPE --real` and `--realism`."""

from __future__ import annotations

from pathlib import Path

from training.evaluation import real, real_report, realism, realism_report
from training.evaluation.subject import open_subject
from training.recipe import Recipe


def judge_on_real_pixels(recipe: Recipe, folder: Path, zoo: Path | None, injections: int) -> Path:
    """Write the page of `real_report`; its path. zoo: see `open_subject`."""
    ensemble = open_subject(recipe, zoo)
    pixels = real.load(recipe, ensemble, injections)
    real_report.write_real(folder, pixels, real.score(pixels, ensemble), ensemble)
    return folder / "index.html"


def judge_realism(recipe: Recipe, folder: Path, zoo: Path | None, mocks: int) -> Path:
    """Write the page of `realism_report`; its path."""
    ensemble = open_subject(recipe, zoo)
    found = realism.comparisons(recipe, ensemble, mocks)
    realism_report.write_realism(folder, realism.judge(found, ensemble))
    return folder / "index.html"
