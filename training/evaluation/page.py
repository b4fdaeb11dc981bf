"""Pages and JSON files of evaluations."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from lenspipe.models.card import Metric
from training.metrics import Unsupported


def as_json(value: Any) -> Any:
    """A report as JSON values; a number that is none is null."""
    if isinstance(value, dict):
        return {str(key): as_json(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [as_json(part) for part in value]
    return _single(value)


def _single(value: Any) -> Any:
    if isinstance(value, Metric):
        return value.model_dump(mode="json")
    if isinstance(value, Unsupported):
        return {"not_supported_by_this_sample": value.reason}
    plain = value.item() if isinstance(value, np.generic) else value
    return None if isinstance(plain, float) and not math.isfinite(plain) else plain


def write_json(path: Path, content: Any) -> None:
    """One JSON file, keys in order."""
    path.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps(as_json(content), indent=1, sort_keys=True, ensure_ascii=False)
    path.write_text(text + "\n", encoding="utf-8")


def render(template: str, **content: Any) -> str:
    """A page of `templates/`; a name that is missing raises."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["figure"] = figure
    return environment.get_template(template).render(**content)


def figure(value: float | None, digits: int = 4) -> str:
    """A number for a table: so many digits, a dash for none."""
    if value is None or not math.isfinite(value):
        return "–"
    return f"{value:.{digits}f}" if 1e-3 <= abs(value) < 1e4 or value == 0 else f"{value:.2e}"
