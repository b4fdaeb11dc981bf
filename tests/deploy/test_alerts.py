"""Rules, alerts and dashboard: by the real promtool, on metrics that there are."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from math import pi, sin
from pathlib import Path

import pytest
import yaml

from tests.deploy.chart import FILES, ROOT, one, render
from tests.deploy.monitoring import (
    DEPLOY,
    OF_OTHERS,
    alerts,
    panels,
    promtool,
    queries,
    records,
    rules,
    series,
    there,
)

pytestmark = pytest.mark.tool

CASES = Path(__file__).parent / "alerts.yaml"
PAGE = ROOT / "docs" / "monitoring.md"


def test_the_rules_are_rules() -> None:
    promtool("check", "rules", FILES / "rules.yaml")


def test_the_configuration_is_one(tmp_path: Path) -> None:
    text = (DEPLOY / "prometheus" / "prometheus.yaml").read_text("utf-8")
    (tmp_path / "prometheus.yaml").write_text(text, "utf-8")
    (tmp_path / "rules.yaml").write_bytes((DEPLOY / "prometheus" / "rules.yaml").read_bytes())
    promtool("check", "config", tmp_path / "prometheus.yaml")


def test_the_chart_and_deploy_have_one_source() -> None:
    """The chart holds the files, since Helm reads no others; deploy/ links to them."""
    for folder, name in (("prometheus", "rules.yaml"), ("grafana", "dashboard.json")):
        link = DEPLOY / folder / name
        assert link.is_symlink()
        assert not link.readlink().is_absolute()
        assert link.resolve(strict=True) == FILES / name
        assert not (FILES / name).is_symlink()


def test_the_chart_installs_all_rules() -> None:
    found = one(render("values-survey.yaml"), "PrometheusRule")
    assert [rule for group in found["spec"]["groups"] for rule in group["rules"]] == rules()


def test_alerts_fire_when_they_should_and_only_then() -> None:
    promtool("test", "rules", CASES)


STEP_S = 300


def seconds_left(days: float, speed: Callable[[float], float]) -> Iterator[float]:
    """The time left of a stage of so many days at speed 1, each 5 minutes. speed: of a day."""
    left, step = days, STEP_S / 86_400
    now = 0.0
    while left > 0:
        yield left * 86_400 / speed(now)
        left -= speed(now) * step
        now += step


def slow_and_fast(day: float) -> float:
    return 1 + 0.05 * sin(2 * pi * day / 0.5)


def a_third_goes(day: float) -> float:
    return slow_and_fast(day) if day < 5 else slow_and_fast(day) * 2 / 3


@pytest.mark.parametrize(
    ("speed", "fires"),
    [(slow_and_fast, []), (a_third_goes, [{"labels": "{}", "value": 1}])],
    ids=["a speed that varies by 5%", "a third of the nodes that goes"],
)
def test_the_end_of_a_run_of_ten_days_slips_only_where_it_does(
    tmp_path: Path, speed: Callable[[float], float], fires: list[dict[str, object]]
) -> None:
    told = " ".join(f"{left:.0f}" for left in seconds_left(10, speed))
    end = len(told.split()) * STEP_S
    run = f"1x{end // STEP_S}"
    alert = 'ALERTS{alertname="LenspipeEtaSlipping", alertstate="firing"}'
    case = {
        "interval": f"{STEP_S}s",
        "input_series": [
            {"series": 'lenspipe_run_info{run="demo", created="monday"}', "values": run},
            {"series": 'lenspipe_eta_seconds{stage="score"}', "values": told},
        ],
        "promql_expr_test": [
            {
                "expr": f"count(count_over_time({alert}[20d]))",
                "eval_time": f"{end}s",
                "exp_samples": fires,
            }
        ],
    }
    asked = [
        r
        for r in rules()
        if {"lenspipe:eta_seconds", "LenspipeEtaSlipping"} & {r.get("record"), r.get("alert")}
    ]
    alone = {"groups": [{"name": "eta", "rules": asked}]}  # the others would take their time
    (tmp_path / "rules.yaml").write_text(yaml.safe_dump(alone), "utf-8")
    file = tmp_path / "ten_days.yaml"
    tests = {"rule_files": ["rules.yaml"], "evaluation_interval": f"{STEP_S}s"}
    file.write_text(yaml.safe_dump({**tests, "tests": [case]}, width=1e9), "utf-8")
    promtool("test", "rules", file)


def test_every_alert_is_tried_both_ways_and_every_record() -> None:
    fires: set[str] = set()
    silent: set[str] = set()
    asked: set[str] = set()
    for case in yaml.safe_load(CASES.read_text("utf-8"))["tests"]:
        for tried in case.get("alert_rule_test", []):
            (fires if tried.get("exp_alerts") else silent).add(tried["alertname"])
        asked |= {
            name for tried in case.get("promql_expr_test", []) for name in series(tried["expr"])
        }
    names = {rule["alert"] for rule in alerts()}
    assert fires == names
    assert silent == names
    needed = {name for rule in alerts() for name in series(rule["expr"])}
    assert asked | needed >= set(records())


def test_alerts_say_how_bad_it_is_and_what() -> None:
    for rule in alerts():
        assert rule["labels"]["severity"] in ("warning", "critical"), rule["alert"]
        assert set(rule["annotations"]) == {"summary", "description", "runbook"}, rule["alert"]


def test_the_handbook_has_a_heading_for_every_alert() -> None:
    headings = [line[4:] for line in PAGE.read_text("utf-8").splitlines() if line[:4] == "### "]
    told = [name for name in headings if name.startswith("Lenspipe")]
    assert told == [rule["alert"] for rule in alerts()]
    for rule in alerts():
        expected = f"{PAGE.relative_to(ROOT)}#{rule['alert'].lower()}"
        assert rule["annotations"]["runbook"] == expected


def test_rules_and_panels_ask_for_metrics_that_there_are() -> None:
    known = there() | set(records())
    for expression in [*(rule["expr"] for rule in rules()), *queries()]:
        asked = series(expression)
        assert asked, expression
        assert asked <= known, expression


def test_every_metric_of_a_run_is_on_the_dashboard() -> None:
    shown = {name for query in queries() for name in series(query)}
    families = {name for name in there() - OF_OTHERS if not name.endswith(("_sum", "_count"))}
    assert families <= shown


def test_panels_ask_in_promql(tmp_path: Path) -> None:
    asked = [{"record": f"panel{n}", "expr": query} for n, query in enumerate(queries())]
    file = tmp_path / "panels.yaml"
    file.write_text(yaml.safe_dump({"groups": [{"name": "panels", "rules": asked}]}), "utf-8")
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
