"""Debian's Prometheus watches a run: every panel and every alert finds its series there."""

from __future__ import annotations

import json
import re
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import ray as _typed_ray
import requests
import yaml
from ray.dashboard.modules.reporter import reporter_agent

from lenspipe.processes.slots import Machine
from tests.deploy.chart import ROOT
from tests.deploy.monitoring import DEPLOY, alerts, panels, records, rules, series
from tests.tools import require_tool
from tests.toy_survey import make_survey

pytestmark = [pytest.mark.service, pytest.mark.tool, pytest.mark.timeout(600)]

ray: Any = _typed_ray  # its annotations leave out what its documentation names
# What no run on a machine without GPUs can have, and why.
NOT_HERE = {
    "ray_node_gpus_utilization": "no GPU: that Ray serves it is held by its source, below",
}
ROWS = 8_000
WAIT_S = 120.0  # for what comes within seconds on a machine that is not shared


@dataclass(frozen=True)
class Prometheus:
    """A server that runs. since: when it was started, seconds of the Unix epoch."""

    url: str
    since: float

    def ask(self, path: str, **query: str) -> Any:
        """`data` of an answer of its API."""
        told = requests.get(f"{self.url}/api/v1/{path}", params=query, timeout=30).json()
        assert told["status"] == "success", told
        return told["data"]

    def values(self, expression: str) -> list[dict[str, Any]]:
        """Series of an expression from the start until now, second by second."""
        found = self.ask(
            "query_range", query=expression, start=str(self.since), end=str(time.time()), step="1"
        )
        return list(found["result"])

    def firing(self) -> list[dict[str, str]]:
        """Labels of the alerts that fire."""
        found = self.ask("alerts")["alerts"]
        return [dict(alert["labels"]) for alert in found if alert["state"] == "firing"]


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


@contextmanager
def prometheus(folder: Path, driver: int) -> Iterator[Prometheus]:
    """The configuration of deploy/, every second, with the ports of this test."""
    folder.mkdir()
    node = ray.nodes()[0]
    exporter = f"{node['NodeManagerAddress']}:{node['MetricsExportPort']}"
    nodes = folder / "ray.json"
    nodes.write_text(json.dumps([{"labels": {"job": "ray"}, "targets": [exporter]}]), "utf-8")
    content = yaml.safe_load((DEPLOY / "prometheus" / "prometheus.yaml").read_text("utf-8"))
    content["global"] = {"scrape_interval": "1s", "evaluation_interval": "1s"}
    jobs = {job["job_name"]: job for job in content["scrape_configs"]}
    jobs["lenspipe"]["static_configs"] = [{"targets": [f"127.0.0.1:{driver}"]}]
    jobs["ray"]["file_sd_configs"] = [{"files": [str(nodes)]}]
    (folder / "prometheus.yaml").write_text(yaml.safe_dump(content), "utf-8")
    (folder / "rules.yaml").write_bytes((DEPLOY / "prometheus" / "rules.yaml").read_bytes())
    port = free_port()
    command = [
        require_tool("prometheus"),
        f"--config.file={folder / 'prometheus.yaml'}",
        f"--storage.tsdb.path={folder / 'data'}",
        f"--web.listen-address=127.0.0.1:{port}",
    ]
    with (
        (folder / "log").open("w") as log,
        subprocess.Popen(command, cwd=folder, stdout=log, stderr=log) as process,
    ):
        try:
            server = Prometheus(f"http://127.0.0.1:{port}", time.time())
            _await(lambda: _is_ready(server.url), "Prometheus")
            yield server
        finally:
            process.terminate()


def _is_ready(url: str) -> bool:
    try:
        return requests.get(f"{url}/-/ready", timeout=5).ok
    except requests.ConnectionError:
        return False


def _await(met: Any, what: str) -> None:
    deadline = time.monotonic() + WAIT_S
    while not met():
        assert time.monotonic() < deadline, f"waited {WAIT_S:g} s for {what}"
        time.sleep(0.2)


def lenspipe(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "lenspipe", *map(str, arguments)]
    return subprocess.run(
        command, check=False, capture_output=True, text=True, cwd=ROOT, timeout=400
    )


def survey_of(folder: Path, rows: int, **changes: Any) -> Path:
    """A toy survey of which one source in a hundred has no pixels."""
    survey = make_survey(folder, rows, row_group=1000, **changes)
    path = folder / "catalogue" / "part.parquet"
    table = pq.read_table(path)
    row = table["row"].to_numpy().copy()
    row[::100] += 10 * rows
    at = table.schema.get_field_index("row")
    pq.write_table(table.set_column(at, "row", [row]), path, row_group_size=1000)
    return survey


@dataclass(frozen=True)
class Watched:
    """What Prometheus saw of a run, and what the run wrote."""

    server: Prometheus
    driver: int
    address: str
    lines: list[dict[str, Any]]


@pytest.fixture(scope="module")
def watched(
    ray_cluster: Machine,  # it is to run
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Watched]:
    """A run whose scores another run of the same sources has stated."""
    folder = tmp_path_factory.mktemp("live")
    address = ray.get_runtime_context().gcs_address
    runtime = {"provider": "cpu", "scorers": 1, "failure_limit": 1.0}
    first = survey_of(folder / "sky", ROWS, runtime=runtime)
    done = lenspipe("run", first, "--address", address)
    assert done.returncode == 0, done.stderr
    stated = folder / "sky" / "stated.yaml"
    done = lenspipe("models", "reference", first.parent / "run", "--out", stated)
    assert done.returncode == 0, done.stderr
    content = yaml.safe_load(first.read_text("utf-8"))
    driver = free_port()
    content["runtime"] = {**runtime, "shard_rows": 16, "metrics_port": driver}
    second = first.with_name("second.yaml")
    second.write_text(yaml.safe_dump({**content, "ensemble": "stated.yaml"}), "utf-8")
    with prometheus(folder / "prometheus", driver) as server:
        done = lenspipe("run", second, "--output", folder / "second", "--address", address)
        assert done.returncode == 0, done.stderr
        lines = [json.loads(line) for line in done.stderr.splitlines() if line[:1] == "{"]
        yield Watched(server, driver, address, lines)


def test_every_panel_has_data(watched: Watched) -> None:
    empty = []
    for panel in panels():
        for target in panel["targets"]:
            asked = target["expr"].replace("$job", ".*")
            if not watched.server.values(asked) and not series(asked) & set(NOT_HERE):
                empty.append((panel["title"], asked))
    assert not empty


def test_every_series_of_the_alerts_and_records_is_there(watched: Watched) -> None:
    asked = {name for rule in rules() for name in series(rule["expr"])}
    assert {*records(), "lenspipe_shards", "ray_node_disk_free"} <= asked | set(records())
    missing = {name for name in asked if not watched.server.values(name)}
    assert missing == asked & set(NOT_HERE)


def test_prometheus_evaluates_every_rule(watched: Watched) -> None:
    found = watched.server.ask("rules")["groups"]
    told = {rule["name"]: rule for group in found for rule in group["rules"]}
    assert set(told) == {rule.get("alert", rule.get("record")) for rule in rules()}
    assert {rule["health"] for rule in told.values()} == {"ok"}, told


def test_a_run_like_its_reference_does_not_drift(watched: Watched) -> None:
    [found] = watched.server.values("lenspipe_score_psi")
    assert "toy" in found["metric"]["population"]
    assert float(found["values"][-1][1]) < 0.01


def test_the_last_state_was_scraped_before_the_driver_went(watched: Watched) -> None:
    """Of the fast stage, which no scrape of its middle need have met, and of the last shard."""
    counted = watched.server.values("sum by (stage) (lenspipe_sources_total)")
    ends = {one["metric"]["stage"]: float(one["values"][-1][1]) for one in counted}
    assert ends["select"] == ROWS
    [done] = [line for line in watched.lines if line["event"] == "run_finished"]
    assert ends["score"] == done["counts"]["scored"] + done["counts"]["failed"]
    states = watched.server.values("lenspipe_run_state_timestamp_seconds")
    assert {one["metric"]["state"] for one in states} == {"running", "done"}
    assert {one["metric"]["run"] for one in states} == {"toy"}


def test_lines_of_the_run_name_run_stage_and_shard(watched: Watched) -> None:
    begun = [line["event"] for line in watched.lines].index("run_started")
    assert all(line["run"] == "toy" for line in watched.lines[begun:])
    commits = [line for line in watched.lines if line["event"] == "shard_committed"]
    assert commits
    for line in commits:
        assert line["stage"] in ("select", "score")
        assert re.fullmatch(r"\d+-\d+", line["shard"])


def test_a_gpu_that_is_not_there_fires_though_the_run_is_gone(
    watched: Watched, tmp_path: Path
) -> None:
    runtime = {"provider": "cuda", "metrics_port": watched.driver}
    survey = survey_of(tmp_path, 200, runtime=runtime)
    done = lenspipe("run", survey, "--address", watched.address)
    assert done.returncode == 2
    assert "runtime.provider: expected cpu or openvino" in done.stderr

    def fires() -> bool:
        told = {alert["alertname"] for alert in watched.server.firing()}
        return {"LenspipeGpuFallbackRefused", "LenspipeRunFailed"} <= told

    _await(fires, "the alerts")
    [told] = [a for a in watched.server.firing() if a["alertname"] == "LenspipeGpuFallbackRefused"]
    assert told["provider"] == "cuda"


def test_ray_serves_what_this_machine_has_none_of() -> None:
    assert "ray_node_gpus_utilization" in NOT_HERE
    source = Path(reporter_agent.__file__).read_text("utf-8")
    assert '"node_gpus_utilization"' in source
    assert '"GpuIndex"' in source


def test_what_is_not_here_is_asked_for_by_somebody() -> None:
    asked = {name for rule in alerts() for name in series(rule["expr"])}
    shown = {name for panel in panels() for t in panel["targets"] for name in series(t["expr"])}
    assert set(NOT_HERE) <= asked | shown
