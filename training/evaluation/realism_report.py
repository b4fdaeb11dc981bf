"""The page and the JSON of how real the mocks are; numbers alone, no stamps."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from training.evaluation.page import as_json, render, write_json
from training.evaluation.pictures import telling


def write_realism(folder: Path, report: dict[str, Any]) -> None:
    """`realism.json`, `index.html` and a picture for each comparison."""
    write_json(folder / "realism.json", report)
    for name in ("galaxies", "lenses"):
        telling.draw(folder / f"{name}.png", report[name])
    page = render("realism.html", report=as_json(report))
    (folder / "index.html").write_text(page, encoding="utf-8")
