from __future__ import annotations

import pytest

from lenspipe.telling.throughput import WINDOW_S, Throughput


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_speed_and_time_left() -> None:
    clock = Clock()
    speed = Throughput(1000, clock=clock)
    assert speed.seconds_left() == float("inf")
    clock.now += 10
    speed.add(200)
    assert speed.per_second() == pytest.approx(20)
    assert speed.seconds_left() == pytest.approx(40)


def test_what_an_earlier_run_did_is_no_speed() -> None:
    clock = Clock()
    speed = Throughput(1000, clock=clock)
    speed.resumed(500)
    clock.now += 10
    speed.add(100)
    assert speed.per_second() == pytest.approx(10)
    assert speed.seconds_left() == pytest.approx(40)


def test_only_the_last_minutes_count_until_the_stage_is_over() -> None:
    clock = Clock()
    speed = Throughput(10_000, clock=clock)
    for rows in [100] * 10 + [10] * 30:
        clock.now += WINDOW_S / 10
        speed.add(rows)
    assert speed.per_second() == pytest.approx(10 / (WINDOW_S / 10))
    speed.finish()
    clock.now += 1000
    assert speed.per_second() == pytest.approx(1300 / (4 * WINDOW_S))
    assert speed.seconds_left() == 0


def test_a_stage_that_stands_still_slows_down() -> None:
    clock = Clock()
    speed = Throughput(1000, clock=clock)
    clock.now += 10
    speed.add(100)
    clock.now += 90
    assert speed.per_second() == pytest.approx(1)
