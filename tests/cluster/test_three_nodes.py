"""A survey over three hosts with Ray: whatever happens to a node, its result is the undisturbed."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from lenspipe.run_directory import RunDirectory
from tests.chaos.job_process import JobProcess
from tests.chaos.results import assert_same
from tests.cluster.ray_nodes import Cluster, actors, cluster, stopped, wait_until
from tests.toy_survey import make_survey

pytestmark = [pytest.mark.chaos, pytest.mark.tool, pytest.mark.timeout(900)]

RUNTIME = {"shard_rows": 4, "provider": "cpu", "scorers": 2, "failure_limit": 1.0}


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A survey that ran once, on one machine."""
    survey = make_survey(tmp_path_factory.mktemp("undisturbed"), 6000, runtime=RUNTIME)
    with JobProcess(survey) as job:
        assert job.wait() == 0, job.lines()
    return survey


@pytest.fixture(scope="module")
def nodes(undisturbed: Path) -> Iterator[Cluster]:
    with cluster() as started:
        yield started


@pytest.fixture
def survey(undisturbed: Path, tmp_path: Path) -> Path:
    """The same survey without its run; times of files belong to a run's identity, and stay."""
    folder = tmp_path / "survey"
    shutil.copytree(undisturbed.parent, folder, ignore=shutil.ignore_patterns("run", "lp-*"))
    return folder / undisturbed.name


def committed(survey: Path) -> int:
    """Shards of stage `score` that count already."""
    return len(list(RunDirectory(str(survey.parent / "run")).commits("score")))


def test_a_survey_is_scored_by_both_workers(
    nodes: Cluster, survey: Path, undisturbed: Path
) -> None:
    driver = nodes.run(survey)
    driver.wait_until(lambda: all(map(actors, nodes.workers)), "without work for one of them")
    assert not actors(nodes.head)
    assert driver.wait() == 0, driver.lines()[-5:]
    assert_same(survey.parent / "run", undisturbed.parent / "run")


def test_a_node_that_is_cut_off_costs_nothing_and_comes_back(
    nodes: Cluster, survey: Path, undisturbed: Path
) -> None:
    """What the other does is committed meanwhile, and nothing is waited for that it holds."""
    one, two = nodes.workers
    driver = nodes.run(survey)
    driver.wait_until_scoring()
    with stopped(two):
        lost = {process.pid for process in actors(two)}
        two.unplug()
        done = committed(survey)
        driver.wait_until(lambda: committed(survey) > done, "committing nothing meanwhile")
        with stopped(one):
            driver.wait_until(lambda: driver.events("shard_retried"), "waiting for the lost node")
            two.plug()
            driver.wait_until(
                lambda: {process.pid for process in actors(two)} - lost, "without the node"
            )
    assert driver.wait() == 0, driver.lines()[-5:]
    assert_same(survey.parent / "run", undisturbed.parent / "run")


def test_the_head_starts_again_and_the_same_command_resumes(
    nodes: Cluster, survey: Path, undisturbed: Path
) -> None:
    driver = nodes.run(survey)
    driver.wait_until_scoring()
    with stopped(nodes.workers[0]), stopped(nodes.workers[1]):
        nodes.end_ray(nodes.head)
        assert driver.wait() == 1
    last = driver.lines()[-1]
    assert last.startswith("StoppedError: "), last
    assert last.endswith("the same command resumes"), last
    done = committed(survey)
    assert done > 0
    wait_until(lambda: not any(map(actors, nodes.workers)), "working without a head")
    nodes.start_head()
    again = nodes.run(survey)
    assert again.wait() == 0, again.lines()[-5:]
    assert_same(survey.parent / "run", undisturbed.parent / "run")


def test_a_node_that_loses_power_costs_nothing(
    nodes: Cluster, survey: Path, undisturbed: Path
) -> None:
    _, two = nodes.workers
    driver = nodes.run(survey)
    driver.wait_until_scoring()
    with stopped(two):
        two.lose_power()
    assert driver.wait() == 0, driver.lines()[-5:]
    assert driver.events("shard_retried")
    assert_same(survey.parent / "run", undisturbed.parent / "run")
