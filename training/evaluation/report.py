"""The page and the JSON of a model, or of an ensemble with its members, on one test set."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lenspipe.models.card import Threshold
from training.data import Examples
from training.evaluation.page import as_json, render, write_json
from training.evaluation.pictures import bars, hexbins, reliability, roc, thresholds


def write_report(
    folder: Path,
    test: Examples,
    reports: Mapping[str, dict[str, Any]],
    marks: Sequence[Threshold] = (),
) -> None:
    """`evaluation.json`, `index.html` and its pictures.

    reports: of `judge.evaluate` by model; the first is the page's subject and has pictures, the
    others (members of an ensemble) have curves and tables. marks: the subject's thresholds.
    """
    folder.mkdir(parents=True, exist_ok=True)
    subject = next(iter(reports))
    content = {
        "name": subject,
        "test_set": {
            "name": test.name,
            "sha256": test.sha256,
            "lenses": int(test.positive.sum()),
            "others": int((~test.positive).sum()),
            "rests_on": test.rests_on,
        },
        "models": {name: as_json(report) for name, report in reports.items()},
    }
    write_json(folder / "evaluation.json", content)
    pictures = draw(folder, reports, marks)
    page = render("evaluation.html", **content, subject=subject, pictures=pictures)
    (folder / "index.html").write_text(page, encoding="utf-8")


def draw(
    folder: Path, reports: Mapping[str, dict[str, Any]], marks: Sequence[Threshold]
) -> dict[str, str]:
    """Draw every picture that there are numbers for; its file -> what it shows."""
    report = next(iter(reports.values()))
    roc.draw(folder / "roc.png", reports)
    thresholds.draw(folder / "thresholds.png", report["curves"]["against_threshold"], marks)
    reliability.draw(folder / "reliability.png", report["reliability"])
    drawn = {
        "roc.png": "ROC curves. Shaded: fewer than ten false positives.",
        "thresholds.png": "Precision, recall, accuracy, F1 and Fβ against the threshold, at this "
        "set's fraction of lenses.",
        "reliability.png": "Reliability: of the sources with a probability, how many are lenses. "
        "Bars: 95% Clopper-Pearson.",
    }
    panels = report.get("completeness_hexbins", {}).get("panels", [])
    if panels:
        hexbins.draw(folder / "completeness.png", panels)
        drawn["completeness.png"] = (
            f"Completeness at the threshold for {_rate(report['completeness_hexbins']['at'])}. "
            "Small hexagons hold fewer than five lenses, and their colour says little."
        )
    if report["at_threshold"]:
        drawn |= _draw_at_threshold(folder, report)
    return drawn


def _draw_at_threshold(folder: Path, report: dict[str, Any]) -> dict[str, str]:
    at, rates = list(report["at_threshold"].items())[-1]
    drawn = {}
    if rates["completeness_by"]:
        bars.draw_completeness(folder / "bins.png", rates["completeness_by"])
        drawn["bins.png"] = (
            f"Completeness by what the lens is like, at the threshold for {_rate(at)}. Bars: 95% "
            "Clopper-Pearson; on top: lenses in the bin."
        )
    bars.draw_confusion(folder / "confusion.png", rates["confusion"], "fraction taken for a lens")
    drawn["confusion.png"] = f"Who is taken for a lens at the threshold for {_rate(at)}."
    return drawn


def _rate(key: str) -> str:
    return key.replace("fpr_", "FPR ")
