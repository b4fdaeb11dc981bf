"""What holds for every simulated stage, whatever its shards and nodes."""

from __future__ import annotations

import math
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jaxtyping import Float64

from lenspipe.forecast.simulation import Cluster, Stragglers, draw_seconds, simulate

SECONDS = st.lists(st.floats(0.1, 50.0), min_size=1, max_size=60)
CLUSTERS = st.builds(
    Cluster,
    nodes=st.integers(1, 8),
    workers=st.integers(1, 4),
    depth=st.integers(1, 3),
    driver_s=st.sampled_from([0.0, 0.01, 1.0]),
    driver_scan_s=st.sampled_from([0.0, 0.001]),
    failures_per_node_hour=st.sampled_from([0.0, 10.0, 100.0]),
    back_after_s=st.sampled_from([0.0, 5.0, 60.0]),
)


def array(values: list[float]) -> Float64[np.ndarray, " n"]:
    return np.array(values, np.float64)


@settings(max_examples=200, deadline=None)
@given(SECONDS, CLUSTERS, st.integers(0, 100))
def test_every_shard_is_done_once_and_no_time_is_unaccounted_for(
    values: list[float], cluster: Cluster, seed: int
) -> None:
    seconds = array(values)
    found = simulate(seconds, cluster, np.random.default_rng(seed))
    assert (found.done == 1).all()
    assert found.busy_s == pytest.approx(seconds.sum())
    assert found.lost_s >= 0.0
    assert found.lost_s == 0.0 or found.failures > 0
    # No worker is at two shards, and no shard in two places.
    assert found.seconds * cluster.all_workers >= (found.busy_s + found.lost_s) * (1 - 1e-9)
    assert found.seconds >= seconds.max()
    assert found.driver_s >= len(seconds) * cluster.driver_s * (1 - 1e-9)
    assert found.seconds >= found.driver_s * (1 - 1e-9)
    assert 0.0 < found.efficiency <= 1.0 + 1e-9


@given(st.integers(0, 200), st.integers(1, 8), st.integers(1, 5), st.integers(1, 4))
def test_equal_shards_without_faults_take_the_closed_form(
    shards: int, nodes: int, workers: int, depth: int
) -> None:
    found = simulate(np.full(shards, 3.0), Cluster(nodes, workers, depth))
    assert found.seconds == pytest.approx(3.0 * math.ceil(shards / (nodes * workers)))


@given(st.integers(1, 100), st.integers(1, 4))
def test_a_driver_that_is_slower_than_its_workers_sets_the_time(shards: int, depth: int) -> None:
    """Once the first shard is done, it is busy until the last."""
    found = simulate(np.full(shards, 1.0), Cluster(1, shards, depth, driver_s=2.0))
    assert found.seconds == pytest.approx(1.0 + 2.0 * shards)


def test_a_round_of_the_driver_takes_all_that_ended_since_the_last_began() -> None:
    """Of 50 shards that end together one is taken by the first round, all others by the second."""
    found = simulate(np.full(50, 1.0), Cluster(1, 50, driver_s=2.0, driver_scan_s=0.1))
    assert found.driver_s == pytest.approx(50 * 2.0 + 0.1 * (50 + 49))
    assert found.seconds == pytest.approx(1.0 + found.driver_s)


def test_rounds_do_not_stop_a_busy_driver() -> None:
    """10,000 workers and shards that leave the driver no time: each shard costs its own time, and
    rounds next to nothing, since each takes all that waits."""
    found = simulate(np.full(30_000, 1.0), Cluster(100, 100, 2, 1e-3, 6e-7))
    assert found.driver_s == pytest.approx(30_000 * 1e-3, rel=0.05)


@settings(deadline=None)
@given(SECONDS, st.integers(1, 8), st.integers(1, 4))
def test_more_nodes_are_never_slower(values: list[float], nodes: int, workers: int) -> None:
    one, more = (simulate(array(values), Cluster(n, workers)).seconds for n in (nodes, nodes + 1))
    assert more <= one * (1 + 1e-9)


@settings(deadline=None)
@given(SECONDS, CLUSTERS, st.floats(1.0, 3.0), st.data())
def test_a_shard_that_takes_longer_never_ends_the_stage_earlier(
    values: list[float], cluster: Cluster, factor: float, data: st.DataObject
) -> None:
    plain = Cluster(cluster.nodes, cluster.workers)
    slow = list(values)
    slow[data.draw(st.integers(0, len(values) - 1))] *= factor
    before, after = (simulate(array(v), plain).seconds for v in (values, slow))
    assert after >= before * (1 - 1e-9)


def test_a_lost_node_costs_what_it_was_at_and_the_time_until_it_is_back() -> None:
    """One worker, one shard of an hour, a node that is lost about once in it: attempts that ended
    with it, the times away and one whole attempt are all that there is."""
    cluster = Cluster(1, 1, failures_per_node_hour=1.0, back_after_s=100.0)
    found = simulate(np.array([3600.0]), cluster, np.random.default_rng(3))
    assert found.failures > 0
    assert found.seconds == pytest.approx(3600.0 + found.lost_s + 100.0 * found.failures)


def test_a_shard_is_done_anew_as_often_as_theory_says() -> None:
    """Attempts of T that a Poisson process of rate r ends, each begun anew at once: the mean until
    one is whole is (exp(rT) - 1) / r."""
    rate, took = 1.0 / 3600.0, 3600.0
    cluster = Cluster(1, 1, failures_per_node_hour=1.0, back_after_s=0.0)
    rng = np.random.default_rng(0)
    times = [simulate(np.array([took]), cluster, rng).seconds for _ in range(4000)]
    assert np.mean(times) == pytest.approx(math.expm1(rate * took) / rate, rel=0.05)


def test_nodes_are_lost_at_the_stated_rate() -> None:
    cluster = Cluster(16, 2, failures_per_node_hour=0.5, back_after_s=1.0)
    found = simulate(np.full(20_000, 60.0), cluster, np.random.default_rng(0))
    expected = 0.5 * 16 * found.seconds / 3600.0
    assert abs(found.failures - expected) < 4.0 * math.sqrt(expected)


def test_stragglers_lengthen_what_they_should() -> None:
    rng = np.random.default_rng(0)
    drawn = draw_seconds(100_000, np.array([1.0, 3.0]), rng, Stragglers(0.01, 10.0))
    assert drawn.mean() == pytest.approx(2.0 * (1.0 + 0.01 * 9.0), rel=0.02)
    assert set(np.round(drawn / drawn.min(), 6)) == {1.0, 3.0, 10.0, 30.0}


def test_what_cannot_be_simulated_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one node"):
        Cluster(0, 1)
    with pytest.raises(ValueError, match="random generator"):
        simulate(np.ones(1), Cluster(1, 1, failures_per_node_hour=1.0))
    with pytest.raises(ValueError, match="measured shard"):
        draw_seconds(1, np.empty(0), np.random.default_rng(0))


def test_a_hundred_thousand_shards_take_a_second_of_processor_time() -> None:
    seconds = np.random.default_rng(0).lognormal(3.0, 0.3, 100_000)
    began = time.process_time()
    found = simulate(seconds, Cluster(64, 16, 2, 1.4e-3, 4e-7))
    assert time.process_time() - began < 5.0  # other work on the machine slows it
    assert found.done.all()
