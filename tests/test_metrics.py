from __future__ import annotations

import re
import subprocess
import threading
import time
import urllib.error
import urllib.request

import pytest
import requests
from prometheus_client.parser import text_string_to_metric_families

from lenspipe.metrics import End, RunMetrics
from lenspipe.models.card import ScoreDistribution
from lenspipe.models.drift import population_stability
from lenspipe.run_directory import ShardRecord
from tests.tools import require_tool

SELECT = ShardRecord(
    stage="select",
    start=0,
    stop=100,
    rows_in=100,
    rows_out=20,
    rows_failed=3,
    removed={"cut:red:false": 40, "cut:red:unknown": 7, "network": 30},
    reasons={"bad_metadata": 3},
    seconds={"query": 0.4},
)
SCORE = ShardRecord(
    stage="score",
    start=0,
    stop=20,
    rows_in=20,
    rows_out=18,
    rows_failed=2,
    reasons={"not_found": 2},
    seconds={"read": 2.0, "score": 0.5},
    cutouts=18,
    batches=2,
    bytes_read=4096,
)


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def busy(clock: Clock | None = None) -> RunMetrics:
    clock = clock or Clock()
    metrics = RunMetrics("demo", clock=clock)
    metrics.began("2026-01-02T03:04:05+00:00")
    metrics.planned("select", 1, 100)
    metrics.planned("score", 3, 60)
    metrics.started("select")
    clock.now += 10
    metrics.committed(SELECT)
    metrics.finished("select")
    metrics.started("score")
    metrics.resumed("score", [SCORE])
    metrics.queue("score", 1, running=1)
    clock.now += 4
    metrics.retried("score")
    metrics.split("score")
    metrics.actor_restarted()
    metrics.committed(SCORE)
    return metrics


def values(text: bytes) -> dict[str, float]:
    found = {}
    for family in text_string_to_metric_families(text.decode()):
        for sample in family.samples:
            labels = ",".join(f"{key}={value}" for key, value in sorted(sample.labels.items()))
            found[f"{sample.name}{{{labels}}}" if labels else sample.name] = sample.value
    return found


def test_every_event_is_told() -> None:
    found = values(busy().text())
    assert found["lenspipe_sources_total{outcome=cut,stage=select}"] == 47
    assert found["lenspipe_sources_total{outcome=rejected,stage=select}"] == 30
    assert found["lenspipe_sources_total{outcome=selected,stage=select}"] == 20
    assert found["lenspipe_sources_total{outcome=failed,stage=select}"] == 3
    assert found["lenspipe_sources_total{outcome=scored,stage=score}"] == 36
    assert found["lenspipe_shards{stage=score,state=planned}"] == 3
    assert found["lenspipe_shards{stage=score,state=running}"] == 1
    assert found["lenspipe_shards{stage=score,state=done}"] == 2
    assert found["lenspipe_shards{stage=score,state=retried}"] == 1
    assert found["lenspipe_shards{stage=score,state=split}"] == 1
    assert found["lenspipe_cutouts_read_total{stage=score}"] == 36
    assert found["lenspipe_cutout_bytes_read_total{stage=score}"] == 8192
    assert found["lenspipe_batches_total{stage=score}"] == 4
    assert found["lenspipe_queue_depth{stage=score}"] == 1
    assert found["lenspipe_actor_restarts_total"] == 1
    assert found["lenspipe_retries_total{stage=score}"] == 1
    assert found["lenspipe_retries_total{stage=select}"] == 0
    assert found["lenspipe_run_info{created=2026-01-02T03:04:05+00:00,run=demo}"] == 1


COUNTED = re.compile(
    r"^lenspipe_(sources|cutouts_read|cutout_bytes_read|batches|batch_halvings|failures"
    r"|node_sources|scores)_total"
)


def counted(metrics: RunMetrics) -> dict[str, float]:
    """Samples of all counters that tell of an earlier attempt's commits, too."""
    return {name: v for name, v in values(metrics.text()).items() if COUNTED.match(name)}


def test_counters_of_a_resume_begin_with_what_was_committed_before() -> None:
    """None is served before all commits are read, or a rate would take them for one leap."""
    metrics, record = RunMetrics("demo"), SCORE.model_copy(update={"node": "10.0.0.1"})
    metrics.planned("score", 3, 60)
    metrics.started("score")
    metrics.compare_scores(STATED)
    metrics.resumed("score", [record])
    assert not counted(metrics)
    metrics.resumed("score", [record.model_copy(update={"scores": {"0.5": 18}, "halvings": 2})])
    assert not counted(metrics)
    metrics.stage_resumed("score")
    assert counted(metrics) == {
        "lenspipe_sources_total{outcome=scored,stage=score}": 36,
        "lenspipe_sources_total{outcome=failed,stage=score}": 4,
        "lenspipe_cutouts_read_total{stage=score}": 36,
        "lenspipe_cutout_bytes_read_total{stage=score}": 8192,
        "lenspipe_batches_total{stage=score}": 4,
        "lenspipe_batch_halvings_total{stage=score}": 2,
        "lenspipe_failures_total{reason=not_found,stage=score}": 4,
        "lenspipe_node_sources_total{node=10.0.0.1,stage=score}": 40,
        "lenspipe_scores_total{below=0.5}": 18,
        "lenspipe_scores_total{below=+Inf}": 0,
    }
    metrics.committed(record)
    assert counted(metrics)["lenspipe_cutouts_read_total{stage=score}"] == 54


def test_counters_of_a_new_run_begin_at_zero() -> None:
    metrics = RunMetrics("demo")
    metrics.planned("select", 1, 100)
    metrics.started("select")
    metrics.stage_resumed("select")
    outcomes = ("cut", "rejected", "selected", "failed")
    expected = {f"lenspipe_sources_total{{outcome={name},stage=select}}": 0 for name in outcomes}
    assert counted(metrics) == expected


def states(metrics: RunMetrics) -> dict[str, float]:
    """Unix times by state."""
    name = r"lenspipe_run_state_timestamp_seconds\{created=monday,run=demo,state=(\w+)\}"
    found = ((re.fullmatch(name, key), value) for key, value in values(metrics.text()).items())
    return {match[1]: value for match, value in found if match}


@pytest.mark.parametrize("end", ["done", "failed", "stopped"])
def test_the_state_of_the_run_is_the_latest_that_is_told(end: End) -> None:
    metrics = RunMetrics("demo")
    metrics.ended(end)
    assert not states(metrics)  # it never began
    before = time.time()
    metrics.began("monday")
    assert set(states(metrics)) == {"running"}
    metrics.ended(end)
    assert set(states(metrics)) == {"running", end}
    assert before <= states(metrics)["running"] < states(metrics)[end] <= time.time()


def test_seconds_are_of_this_process_alone() -> None:
    found = values(busy().text())
    assert found["lenspipe_stage_seconds_count{stage=score,step=read}"] == 1
    assert found["lenspipe_stage_seconds_sum{stage=score,step=read}"] == 2.0


def test_throughput_and_eta_follow_the_clock() -> None:
    clock = Clock()
    metrics = busy(clock)
    found = values(metrics.text())
    assert found["lenspipe_throughput{stage=select}"] == pytest.approx(10)
    assert found["lenspipe_eta_seconds{stage=select}"] == 0
    assert found["lenspipe_throughput{stage=score}"] == pytest.approx(5)
    assert found["lenspipe_eta_seconds{stage=score}"] == pytest.approx(4)
    clock.now += 4
    assert values(metrics.text())["lenspipe_eta_seconds{stage=score}"] == pytest.approx(8)
    metrics.finished("score")
    found = values(metrics.text())
    assert found["lenspipe_queue_depth{stage=score}"] == 0
    assert found["lenspipe_shards{stage=score,state=running}"] == 0


def test_two_runs_in_one_process_do_not_meet() -> None:
    other = RunMetrics("b")
    busy()
    assert (
        values(other.text()).keys().isdisjoint({"lenspipe_sources_total{outcome=cut,stage=select}"})
    )


def test_it_is_served_on_a_free_port_until_stopped() -> None:
    metrics = busy()
    url = f"http://127.0.0.1:{metrics.serve(0)}/metrics"
    with urllib.request.urlopen(url, timeout=10) as answer:
        served = values(answer.read())
    assert served["lenspipe_sources_total{outcome=scored,stage=score}"] == 36
    metrics.stop()
    metrics.stop()
    with pytest.raises(urllib.error.URLError):
        urllib.request.urlopen(url, timeout=10)


@pytest.mark.tool
def test_promtool_has_nothing_to_say() -> None:
    promtool = require_tool("promtool")
    checked = subprocess.run(
        [promtool, "check", "metrics"], input=busy().text(), capture_output=True, check=False
    )
    assert (checked.returncode, checked.stdout, checked.stderr) == (0, b"", b"")


@pytest.mark.tool
def test_promtool_refuses_what_is_no_metric() -> None:
    promtool = require_tool("promtool")
    spoilt = busy().text() + b"lenspipe bad line\n"
    checked = subprocess.run(
        [promtool, "check", "metrics"], input=spoilt, capture_output=True, check=False
    )
    assert checked.returncode != 0


def test_failures_are_told_by_reason_and_sources_by_node() -> None:
    metrics = RunMetrics("demo")
    metrics.planned("score", 3, 60)
    metrics.resumed("score", [SCORE.model_copy(update={"node": "10.0.0.1"})])
    metrics.committed(SCORE.model_copy(update={"node": "10.0.0.2"}))
    metrics.committed(SCORE)  # a quarantine, which no node did
    found = values(metrics.text())
    assert found["lenspipe_failures_total{reason=not_found,stage=score}"] == 6
    assert found["lenspipe_node_sources_total{node=10.0.0.1,stage=score}"] == 20
    assert found["lenspipe_node_sources_total{node=10.0.0.2,stage=score}"] == 20
    assert sum("node_sources_total" in name for name in found) == 2


STATED = ScoreDistribution(population="toy", edges=(0.5,), counts=(500, 500))


def test_scores_are_held_against_what_the_ensemble_states() -> None:
    metrics = RunMetrics("demo")
    metrics.planned("score", 3, 60)
    metrics.compare_scores(STATED)
    metrics.resumed("score", [SCORE.model_copy(update={"scores": {"0.5": 300, "9.0": 40}})])
    metrics.committed(SCORE.model_copy(update={"scores": {"0.5": 300, "+Inf": 200}}))
    found = values(metrics.text())
    assert found["lenspipe_scores_total{below=0.5}"] == 600
    assert found["lenspipe_scores_total{below=+Inf}"] == 200
    assert "lenspipe_scores_total{below=9.0}" not in found
    assert found["lenspipe_score_reference_fraction{below=0.5}"] == 0.5
    expected = population_stability(STATED, {"0.5": 600, "+Inf": 200})[0]
    assert found["lenspipe_score_psi{population=toy}"] == pytest.approx(expected)
    assert 0.25 < expected < 0.3


def test_an_ensemble_that_states_nothing_has_no_drift() -> None:
    metrics = busy()
    metrics.compare_scores(None)
    metrics.committed(SCORE)
    assert not any("score_psi" in name or "scores_total" in name for name in values(metrics.text()))


def test_the_provider_and_its_refusal_are_told() -> None:
    metrics = RunMetrics("demo")
    metrics.provider("cuda")
    found = values(metrics.text())
    assert found["lenspipe_provider_info{provider=cuda}"] == 1
    assert found["lenspipe_provider_refusals_total{provider=cuda}"] == 0
    metrics.provider_refused("cuda")
    assert values(metrics.text())["lenspipe_provider_refusals_total{provider=cuda}"] == 1


def scraping(url: str, often: threading.Event) -> threading.Thread:
    """Scrapes, every tenth of a second, until told to stop."""

    def scrape() -> None:
        while not often.wait(0.1):
            requests.get(url, timeout=10)

    thread = threading.Thread(target=scrape)
    thread.start()
    return thread


def test_the_last_state_is_served_until_it_was_scraped() -> None:
    metrics, told = busy(), list[str]()
    port = metrics.serve(0)
    stop = threading.Event()
    thread = scraping(f"http://127.0.0.1:{port}/metrics", stop)
    try:
        began = time.monotonic()
        metrics.linger(60.0, told.append)
        assert time.monotonic() - began < 30
    finally:
        stop.set()
        thread.join()
        metrics.stop()
    assert told == ["ended; its metrics wait for a last scrape, at most 60 s"]


def test_a_scrape_that_does_not_come_is_waited_for_only_so_long() -> None:
    metrics, told = RunMetrics("demo", Clock()), list[str]()
    metrics.began("monday")
    metrics.ended("failed")  # before any stage
    metrics.serve(0)
    began = time.monotonic()
    metrics.linger(0.2, told.append)
    metrics.stop()
    assert 0.15 < time.monotonic() - began < 30
    assert told == ["ended; its metrics wait for a last scrape, at most 0.2 s"]


def test_what_nobody_scraped_or_served_is_not_waited_for() -> None:
    clock, told = Clock(), list[str]()
    metrics = busy(clock)
    metrics.text()  # for the file: no scrape
    metrics.linger(60.0, told.append)  # nothing is served
    metrics.serve(0)
    clock.now += 61
    metrics.linger(60.0, told.append)  # for as long as this nobody came
    metrics.stop()
    fresh = RunMetrics("demo")
    fresh.serve(0)
    fresh.linger(60.0, told.append)  # it never began
    fresh.stop()
    assert not told
