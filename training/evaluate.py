"""What a ranking is worth on a test set: figures, rates by kind of source, and a page."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Float64

from lenspipe.models.card import Metric, Threshold
from training.data import Examples
from training.metrics import Curve, Unsupported, figures, rate

# Truth columns that completeness is binned by, and the edges of the bins.
BINS: dict[str, tuple[float, ...]] = {
    "theta_e_arcsec": (0.0, 0.75, 1.0, 1.5, 2.0, 3.0, 10.0),
    "arc_snr_g": (0.0, 10.0, 20.0, 40.0, 80.0, 160.0, 1e9),
}
Figures = dict[str, Metric | Unsupported]


def thresholds_of(
    scores: Float[np.ndarray, " n"], positive: Bool[np.ndarray, " n"], fprs: Sequence[float]
) -> tuple[Threshold, ...]:
    """The score that each false-positive rate needs; InputError where the set is too small."""
    curve = Curve(scores, positive)
    return tuple(
        Threshold(fpr=fpr, score=curve.threshold(fpr), n_negatives=curve.n_negatives)
        for fpr in fprs
    )


def evaluate(
    scores: Float[np.ndarray, " n"], test: Examples, thresholds: Sequence[Threshold]
) -> dict[str, Any]:
    """Everything about one ranking of one test set.

    `figures`: of the whole set, the true-positive rate at false-positive rates 0.01 and 0.001 and
    at the thresholds' among them. `at_threshold`: at each stored threshold, which
    was chosen on another set, the false-positive rate found here (all and by kind) and the
    completeness (all and by bin of the truth).
    """
    fprs = sorted({1e-2, 1e-3, *(t.fpr for t in thresholds)}, reverse=True)
    return {
        "figures": figures(scores, test.positive, fprs, rests_on=test.rests_on),
        "at_threshold": {
            f"fpr_{t.fpr:g}": at_threshold(scores > t.score, test) for t in thresholds
        },
    }


def at_threshold(above: Bool[np.ndarray, " n"], test: Examples) -> dict[str, Any]:
    """Rates of sources above a fixed threshold."""
    lens = test.positive
    kinds = sorted(set(test.kinds[~lens].tolist()))
    made = test.rests_on
    return {
        "completeness": rate(above[lens], positives=True, rests_on=made),
        "fpr": rate(above[~lens], positives=False, rests_on=made),
        "fpr_by_kind": {
            kind: rate(above[~lens & (test.kinds == kind)], positives=False, rests_on=made)
            for kind in kinds
        },
        "completeness_by": {
            column: completeness_by(above[lens], test.truth[column][lens], edges, made)
            for column, edges in BINS.items()
            if column in test.truth
        },
    }


def completeness_by(
    above: Bool[np.ndarray, " n"],
    truth: Float[np.ndarray, " n"],
    edges: Sequence[float],
    rests_on: str = "",
) -> dict[str, Metric]:
    """Completeness of the lenses in each bin [low, high) that holds any."""
    found = {}
    for low, high in pairwise(edges):
        inside = (truth >= low) & (truth < high)
        if inside.any():
            found[f"{low:g} to {high:g}"] = rate(above[inside], True, rests_on)
    return found


def card_metrics(found: Mapping[str, Any]) -> dict[str, Metric]:
    """The figures that a card takes: those that the sample supports."""
    return {name: value for name, value in found["figures"].items() if isinstance(value, Metric)}


def in_words(metrics: Mapping[str, Metric]) -> str:
    """Figures on one line."""
    return ", ".join(
        f"{name} {m.value:.4f} ({m.interval[0]:.4f} to {m.interval[1]:.4f})"
        for name, m in metrics.items()
    )


def as_json(value: Any) -> Any:
    """The report as JSON values."""
    if isinstance(value, Metric):
        return value.model_dump(mode="json")
    if isinstance(value, Unsupported):
        return {"not_supported_by_this_sample": value.reason}
    if isinstance(value, dict):
        return {key: as_json(part) for key, part in value.items()}
    return value


def write_report(
    folder: Path,
    test: Examples,
    scores: Mapping[str, Float[np.ndarray, " n"]],
    reports: Mapping[str, dict[str, Any]],
) -> None:
    """`evaluation.json`, `evaluation.png` and `index.html` of several rankings of one test set."""
    folder.mkdir(parents=True, exist_ok=True)
    content = {
        "test_set": {"name": test.name, "sha256": test.sha256, "rows": len(test)},
        "models": {name: as_json(report) for name, report in reports.items()},
    }
    text = json.dumps(content, indent=1, sort_keys=True)
    (folder / "evaluation.json").write_text(text + "\n", encoding="utf-8")
    draw(folder / "evaluation.png", test, scores, reports)
    (folder / "index.html").write_text(page(content), encoding="utf-8")


def draw(
    path: Path,
    test: Examples,
    scores: Mapping[str, Float[np.ndarray, " n"]],
    reports: Mapping[str, dict[str, Any]],
) -> None:
    """ROC curves on a logarithmic axis, and completeness by Einstein radius."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 4.5), layout="constrained")
    left, right = figure.subplots(1, 2)
    for name, values in scores.items():
        curve = Curve(values, test.positive)
        true, false = curve.counts()
        x = np.maximum(false, 0.5) / curve.n_negatives
        left.plot(x, true / curve.n_positives, label=name, drawstyle="steps-post")
        _draw_completeness(right, name, reports[name])
    left.set(xscale="log", xlabel="false-positive rate", ylabel="true-positive rate", ylim=(0, 1))
    right.set(xlabel="Einstein radius (arcsec)", ylabel="completeness", ylim=(0, 1))
    left.legend()
    figure.savefig(path, dpi=120)


def _draw_completeness(axes: Any, name: str, report: dict[str, Any]) -> None:
    if not report["at_threshold"]:
        return
    strictest = list(report["at_threshold"].values())[-1]
    bins: dict[str, Metric] = strictest["completeness_by"].get("theta_e_arcsec", {})
    values: Float64[np.ndarray, " bin"] = np.asarray([m.value for m in bins.values()])
    axes.plot(list(bins), values, marker="o", label=name)


def page(content: dict[str, Any]) -> str:
    """The report as one HTML page."""
    from jinja2 import Environment

    return Environment(autoescape=True).from_string(TEMPLATE).render(**content)


TEMPLATE = """<!doctype html>
<html lang="en"><meta charset="utf-8"><title>Evaluation on {{ test_set.name }}</title>
<style>body{font:15px/1.5 sans-serif;max-width:70em;margin:2em auto;padding:0 1em}
table{border-collapse:collapse}td,th{padding:.2em .8em;border-bottom:1px solid #ccc;text-align:left}
img{max-width:100%}</style>
<h1>Evaluation</h1>
<p>Test set {{ test_set.name }}: {{ test_set.rows }} sources, SHA-256
<code>{{ test_set.sha256[:16] }}</code>. No training has seen it.</p>
<img src="evaluation.png" alt="ROC curves, and completeness by Einstein radius">
{% macro cell(m) %}{% if 'value' in m %}{{ '%.4f' | format(m.value) }}
({{ '%.4f' | format(m.interval[0]) }} to {{ '%.4f' | format(m.interval[1]) }};
{{ m.n_positives }} lenses, {{ m.n_negatives }} others){% else %}not supported by this sample:
{{ m.not_supported_by_this_sample }}{% endif %}{% endmacro %}
{% for name, report in models.items() %}<h2>{{ name }}</h2>
<table><tr><th>figure<th>value (95% interval; sample)</tr>
{% for key, m in report.figures.items() %}<tr><td>{{ key }}<td>{{ cell(m) }}</tr>{% endfor %}
</table>
{% for key, rates in report.at_threshold.items() %}<h3>At the threshold for {{ key }}</h3>
<table><tr><td>completeness<td>{{ cell(rates.completeness) }}</tr>
<tr><td>false-positive rate<td>{{ cell(rates.fpr) }}</tr>
{% for kind, m in rates.fpr_by_kind.items() %}<tr><td>… {{ kind }}<td>{{ cell(m) }}</tr>{% endfor %}
{% for column, bins in rates.completeness_by.items() %}{% for bin, m in bins.items() %}
<tr><td>completeness, {{ column }} {{ bin }}<td>{{ cell(m) }}</tr>{% endfor %}{% endfor %}
</table>{% endfor %}{% endfor %}
</html>
"""
