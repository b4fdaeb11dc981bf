"""Alerts and dashboard: by the real promtool, on metrics that there are."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from lenspipe.metrics import RunMetrics
from tests.deploy.chart import FILES
from tests.tools import require_tool

pytestmark = pytest.mark.tool

CASES = Path(__file__).parent / "alerts.yaml"
# Of Ray's own exporter, and of kubelets.
OF_OTHERS = {
    "ray_node_disk_free",
    "ray_node_disk_usage",
    "ray_node_gpus_utilization",
    "kubelet_volume_stats_available_bytes",
    "kubelet_volume_stats_capacity_bytes",
}


def promtool(*arguments: str | Path) -> None:
    done = subprocess.run(
        [require_tool("promtool"), *arguments], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def alerts() -> list[dict[str, Any]]:
    [group] = yaml.safe_load((FILES / "rules.yaml").read_text("utf-8"))["groups"]
    return list(group["rules"])


def panels() -> list[dict[str, Any]]:
    return list(json.loads((FILES / "dashboard.json").read_text("utf-8"))["panels"])


def queries() -> list[str]:
    return [target["expr"] for panel in panels() for target in panel["targets"]]


def metrics(expression: str) -> set[str]:
    return set(re.findall(r"\b(?:lenspipe|ray|kubelet)_[a-z_]+", expression))


def there() -> set[str]:
    """Names of the series that a run serves, before any of them has a label."""
    names = set(OF_OTHERS)
    for family in RunMetrics("alerts").registry.collect():
        ending = {"counter": ["_total"], "histogram": ["_bucket", "_sum", "_count"]}
        names |= {family.name + end for end in ending.get(family.type, [""])}
    return names


def test_the_alerts_are_rules() -> None:
    promtool("check", "rules", FILES / "rules.yaml")


def test_alerts_fire_when_they_should_and_only_then() -> None:
    promtool("test", "rules", CASES)


def test_every_alert_is_tried_both_ways() -> None:
    fires: set[str] = set()
    silent: set[str] = set()
    for case in yaml.safe_load(CASES.read_text("utf-8"))["tests"]:
        for tried in case["alert_rule_test"]:
            (fires if tried.get("exp_alerts") else silent).add(tried["alertname"])
    names = {rule["alert"] for rule in alerts()}
    assert fires == names
    # In these two, what must not fire stands among the series of the case in which others do.
    assert silent >= names - {"LenspipeWorkersDie", "LenspipeDiskNearlyFull"}


def test_alerts_say_how_bad_it_is_and_what() -> None:
    for rule in alerts():
        assert rule["labels"]["severity"] in ("warning", "critical"), rule["alert"]
        assert set(rule["annotations"]) == {"summary", "description"}, rule["alert"]


def test_alerts_and_panels_ask_for_metrics_that_there_are() -> None:
    for expression in [*(rule["expr"] for rule in alerts()), *queries()]:
        asked = metrics(expression)
        assert asked, expression
        assert asked <= there(), expression


def test_every_metric_of_a_run_is_on_the_dashboard() -> None:
    shown = {name for query in queries() for name in metrics(query)}
    families = {name for name in there() - OF_OTHERS if not name.endswith(("_sum", "_count"))}
    assert families <= shown


def test_panels_ask_in_promql(tmp_path: Path) -> None:
    rules = [{"record": f"panel{n}", "expr": query} for n, query in enumerate(queries())]
    file = tmp_path / "panels.yaml"
    file.write_text(yaml.safe_dump({"groups": [{"name": "panels", "rules": rules}]}), "utf-8")
    promtool("check", "rules", file)


def test_panels_lie_side_by_side() -> None:
    cells: set[tuple[int, int]] = set()
    for panel in panels():
        at = panel["gridPos"]
        own = {
            (x, y)
            for x in range(at["x"], at["x"] + at["w"])
            for y in range(at["y"], at["y"] + at["h"])
        }
        assert not own & cells, panel["title"]
        assert at["x"] + at["w"] <= 24, panel["title"]
        cells |= own


def test_panels_have_titles_of_their_own_and_say_what_they_show() -> None:
    titles = [panel["title"] for panel in panels()]
    assert len(titles) == len(set(titles))
    assert all(panel["description"] for panel in panels())
