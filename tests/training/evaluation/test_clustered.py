"""Intervals of clustered trials cover the truth, at the ends as well."""

from __future__ import annotations

import numpy as np
import pytest

from lenspipe.proportion import clopper_pearson
from training.evaluation import injection
from training.evaluation.clustered import effective, interval
from training.evaluation.injection import Injected, Negatives, recovered

DRAWS = 150


def test_clusters_of_one_are_clopper_and_pearsons() -> None:
    for hits in (0, 3, 10):
        found = interval(np.arange(10) < hits, np.arange(10))
        assert found == pytest.approx(clopper_pearson(hits, 10))


def test_many_stamps_of_few_hosts_are_few_trials() -> None:
    assert interval(np.ones(600, bool), np.arange(600) % 6) == pytest.approx(clopper_pearson(6, 6))
    assert interval(np.zeros(300, bool), np.arange(300) % 3) == pytest.approx(clopper_pearson(0, 3))
    assert interval(np.zeros(0, bool), np.zeros(0, object)) == (0.0, 1.0)


def test_a_cluster_that_holds_nearly_all_leaves_one_trial() -> None:
    assert effective(np.array([5, 5, 5])) == pytest.approx(3.0)
    assert 1.0 < effective(np.array([1000, 1, 1])) < 1.01


def drawn(rate: float, hosts: int, stamps: int, alike: float, seed: int) -> Injected:
    """Stamps that are found with a probability of their host's, a beta distribution of mean `rate`;
    alike: 1 where all stamps of a host fare alike, near 0 where hosts make no difference."""
    draw = np.random.default_rng(seed)
    scale = (1.0 - alike) / alike
    own = draw.beta(rate * scale + 1e-9, (1.0 - rate) * scale + 1e-9, hosts)
    host = np.arange(hosts * stamps) % hosts
    found = draw.random(len(host)) < own[host]
    truth = {"arc_snr_g": np.full(len(host), 25.0), "theta_e_arcsec": np.full(len(host), 2.0)}
    names = np.array([f"host {k}" for k in host], object)
    none = np.zeros((len(host), 1, 1, 1), np.float32)
    return Injected(none, none, names, truth | {"found": found}, np.ones(len(host), bool))


@pytest.mark.parametrize(
    ("rate", "hosts", "alike"),
    [(0.97, 6, 0.5), (0.03, 3, 0.9), (0.9, 12, 0.3), (0.5, 8, 0.7), (0.98, 20, 0.1)],
)
def test_injections_cover_the_true_rate(
    rate: float, hosts: int, alike: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At least 95% of made-up sets, less what 150 of them scatter by (two sigma: 3.6%)."""
    monkeypatch.setattr(injection, "RESAMPLES", 60)
    negatives = Negatives(np.arange(100) / 100, np.arange(100))
    inside = 0
    for seed in range(DRAWS):
        sample = drawn(rate, hosts, 5, alike, seed)
        scores = np.where(sample.truth["found"], 2.0, -1.0)
        low, high = recovered(scores, sample, negatives, 0.01, "g")["tpr"]["target"]["interval"]
        inside += low <= rate <= high
    assert inside / DRAWS >= 0.95 - 0.036


@pytest.mark.parametrize("found", [True, False])
def test_all_or_none_found_is_no_certainty(found: bool) -> None:
    hosts = 6 if found else 3
    truth = {"arc_snr_g": np.full(hosts, 25.0), "theta_e_arcsec": np.full(hosts, 2.0)}
    none = np.zeros((hosts, 1, 1, 1), np.float32)
    one = Injected(none, none, np.arange(hosts).astype(object), truth, np.ones(hosts, bool))
    draw = np.random.default_rng(0)
    negatives = Negatives(draw.normal(size=400), np.arange(400) // 8)
    scores = np.full(hosts, 9.0 if found else -9.0)
    told = recovered(scores, one, negatives, 0.01, "g")["tpr"]["target"]
    assert told["value"] == float(found)
    assert told["interval"] == pytest.approx(clopper_pearson(hosts * found, hosts))
