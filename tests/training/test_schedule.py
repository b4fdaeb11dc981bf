"""Schedules begin and end where they say; a plateau waits for its patience."""

from __future__ import annotations

import pytest

from training.recipe import Schedule
from training.schedule import Rate, along


def test_schedules_begin_and_end_where_they_say() -> None:
    one_cycle = Schedule(warmup=0.25)
    assert along(one_cycle, 0.0) == pytest.approx(0.04)
    assert along(one_cycle, 0.25) == pytest.approx(1.0)
    assert along(one_cycle, 1.0) == pytest.approx(0.0)
    assert along(Schedule(name="cosine"), 0.0) == pytest.approx(1.0)
    assert along(Schedule(name="cosine"), 0.5) == pytest.approx(0.5)
    assert along(Schedule(name="constant"), 0.9) == 1.0


def test_a_plateau_falls_after_its_patience_and_stops_at_its_floor() -> None:
    rate = Rate(Schedule(name="plateau", factor=0.1, patience=2, floor=0.05))
    found = []
    for better in (True, False, False, False, False, False):
        rate.epoch_done(better)
        found.append(rate.at(0.5))
    assert found == pytest.approx([1.0, 1.0, 0.1, 0.1, 0.05, 0.05])


def test_a_better_epoch_begins_the_wait_anew() -> None:
    rate = Rate(Schedule(name="plateau", patience=2))
    for better in (False, True, False):
        rate.epoch_done(better)
    assert rate.at(0.0) == 1.0


def test_a_plateau_goes_on_from_its_state() -> None:
    first, second = (Rate(Schedule(name="plateau", patience=2)) for _ in range(2))
    for _ in range(3):
        first.epoch_done(False)
    second.load_state_dict(first.state_dict())
    for rate in (first, second):
        rate.epoch_done(False)
    assert first.at(0.0) == second.at(0.0) == pytest.approx(0.04)
