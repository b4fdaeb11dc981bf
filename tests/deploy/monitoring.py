"""What is watched: the rules, the dashboard, and the series that both ask for."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path
from typing import Any

import yaml

from lenspipe.metrics import RunMetrics
from tests.deploy.chart import FILES, ROOT
from tests.tools import require_tool

DEPLOY = ROOT / "deploy"
# Of Ray's own exporter.
OF_OTHERS = {
    "ray_node_disk_free",
    "ray_node_disk_usage",
    "ray_node_gpus_utilization",
}


def promtool(*arguments: str | Path) -> None:
    """One command of promtool, which must have nothing to say against it."""
    done = subprocess.run(
        [require_tool("promtool"), *arguments], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def rules() -> list[dict[str, Any]]:
    """Recording rules and alerts."""
    groups = yaml.safe_load((FILES / "rules.yaml").read_text("utf-8"))["groups"]
    return [rule for group in groups for rule in group["rules"]]


def alerts() -> list[dict[str, Any]]:
    """The alerts."""
    return [rule for rule in rules() if "alert" in rule]


def records() -> dict[str, str]:
    """Recorded series and what they are made of."""
    return {rule["record"]: rule["expr"] for rule in rules() if "record" in rule}


def panels() -> list[dict[str, Any]]:
    """The dashboard's panels."""
    return list(json.loads((FILES / "dashboard.json").read_text("utf-8"))["panels"])


def queries() -> list[str]:
    """What they ask."""
    return [target["expr"] for panel in panels() for target in panel["targets"]]


def series(expression: str) -> set[str]:
    """Names of the series that an expression asks for."""
    return set(re.findall(r"\b(?:lenspipe|ray|kubelet)[_:][a-z_:0-9]+", expression))


def there() -> set[str]:
    """Names of the series that a run serves, before any of them has a label, and of others'."""
    names = set(OF_OTHERS)
    for family in RunMetrics("alerts").registry.collect():
        ending = {"counter": ["_total"], "histogram": ["_bucket", "_sum", "_count"]}
        names |= {family.name + end for end in ending.get(family.type, [""])}
    return names
