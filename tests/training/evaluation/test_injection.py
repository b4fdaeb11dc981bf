"""Recovery on made-up scores with known answers."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from lenspipe.errors import InputError
from training.evaluation import injection
from training.evaluation.injection import Injected, Negatives, recovered, recovered_threshold
from training.simulate.instrument import load_instrument


def injected(snr: np.ndarray, theta_e: np.ndarray, hosts: int = 10) -> Injected:
    n = len(snr)
    none = np.zeros((n, 1, 2, 2), np.float32)
    names = np.array([f"host {k % hosts}" for k in range(n)], object)
    truth = {"arc_snr_g": snr, "theta_e_arcsec": theta_e}
    return Injected(none, none, names, truth, np.ones(n, bool))


def negatives(n: int = 200, frames: int = 50) -> Negatives:
    return Negatives(np.arange(n) / n, np.array([f"frame {k % frames}" for k in range(n)], object))


def test_rates_are_counted_where_they_belong() -> None:
    """Scores of 2 above S/N 20, -1 below: found above, missed below, whatever the radius."""
    snr = np.repeat([12.0, 25.0, 60.0], 40)
    theta_e = np.tile([1.2, 1.8], 60)
    scores = np.where(snr > 20, 2.0, -1.0)
    found = recovered(scores, injected(snr, theta_e), negatives(), 0.01, "g")
    assert found["allowed_false_positives"] == 2
    assert (found["negative_stamps"], found["negative_frames"]) == (200, 50)
    tpr = found["tpr"]
    assert (tpr["snr 10 to 15"]["value"], tpr["snr 20 to 30"]["value"]) == (0.0, 1.0)
    assert tpr["all"]["value"] == pytest.approx(2 / 3)
    assert (tpr["target"]["value"], tpr["target"]["lenses"], tpr["target"]["hosts"]) == (1.0, 40, 5)
    assert tpr["theta_e 1 to 1.5"]["lenses"] == 60
    assert tpr["snr 50 to 100, theta_e 1.5 to 2"]["lenses"] == 20
    assert "snr 5 to 10" not in tpr


def test_curves_are_of_the_lenses_drawn_over_the_whole_range() -> None:
    """Those drawn in the target are found, the others missed: only bins of both know of them."""
    some = injected(np.full(40, 25.0), np.full(40, 1.8))
    mixed = replace(some, whole=np.arange(40) < 10)
    scores = np.where(mixed.whole, -1.0, 2.0)
    tpr = recovered(scores, mixed, negatives(), 0.01, "g")["tpr"]
    for name in ("all", "snr 20 to 30", "theta_e 1.5 to 2"):
        assert (tpr[name]["value"], tpr[name]["lenses"]) == (0.0, 10)
    for name in ("target", "snr 20 to 30, theta_e 1.5 to 2"):
        assert (tpr[name]["value"], tpr[name]["lenses"]) == (0.75, 40)


def test_the_interval_is_that_of_hosts_not_of_stamps() -> None:
    """Half of the hosts are found in all stamps: many stamps of 10 hosts are 10 draws."""
    n = 1000
    holder = injected(np.full(n, 30.0), np.full(n, 2.0))
    found_hosts = np.array([int(str(name).split()[1]) < 5 for name in holder.host])
    rate = recovered(np.where(found_hosts, 2.0, -1.0), holder, negatives(), 0.01, "g")["tpr"]["all"]
    low, high = rate["interval"]
    assert rate["value"] == pytest.approx(0.5)
    assert low <= 0.25
    assert high >= 0.75


def test_the_interval_holds_the_scatter_of_the_threshold() -> None:
    """One frame alone has the two highest negatives: without it nearly all lenses are found."""
    scores = np.append(np.zeros(198), [5.0, 5.0])
    frames = np.array([f"frame {k // 4}" for k in range(200)], object)
    one = injected(np.full(200, 30.0), np.full(200, 2.0))
    told = recovered(np.full(200, 3.0), one, Negatives(scores, frames), 0.005, "g")["tpr"]["all"]
    assert told["value"] == 0.0
    assert told["interval"] == [0.0, 1.0]


def test_the_threshold_lets_the_fpr_pass() -> None:
    scores = np.arange(300.0)
    assert (scores > recovered_threshold(scores, 0.01)).sum() == 3
    with pytest.raises(InputError, match="needs 100 non-lenses"):
        recovered_threshold(scores[:50], 0.01)


def test_two_draws_are_joined_row_for_row() -> None:
    a, b = injected(np.full(3, 1.0), np.full(3, 2.0)), injected(np.full(2, 3.0), np.full(2, 4.0))
    both = injection.together(a, b)
    assert len(both) == 5
    assert both.truth["arc_snr_g"].tolist() == [1, 1, 1, 3, 3]


def test_without_hosts_nothing_is_injected() -> None:
    with pytest.raises(InputError, match="real hosts and real sources"):
        injection.inject((), (), load_instrument("ps1"), 4, 48, injection.everything("g"))
