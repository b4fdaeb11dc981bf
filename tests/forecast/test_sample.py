"""When shards ended, and what that says of a worker's time."""

from __future__ import annotations

from pathlib import Path

import pytest

from lenspipe.commands.forecast import seconds_of
from lenspipe.errors import InputError
from lenspipe.forecast.stage_clock import StageClock, StageTimes


def test_slow_first_shards_and_the_last_ones_are_left_out() -> None:
    """Two workers; the first shard of each takes 10 s, the others 2; the last worker is alone."""
    ended = [10.0, 10.0, 12.0, 12.0, 14.0, 14.0, 16.0, 16.0, 18.0, 20.0]
    times = StageTimes(started=-5.0, ready=0.0, finished=20.5, ended=ended)
    assert times.slot_seconds(2) == pytest.approx(2.0)
    assert times.warm_up_seconds(2) == pytest.approx(8.0)
    assert (times.start_up_s, times.seconds) == (5.0, 20.5)


def test_of_few_shards_all_count() -> None:
    times = StageTimes(started=0.0, ready=1.0, ended=[4.0, 5.0, 7.0])
    assert times.slot_seconds(2) == pytest.approx(2 * 6.0 / 3)
    assert times.warm_up_seconds(2) == 0.0
    assert StageTimes(started=0.0).slot_seconds(2) == 0.0


def test_the_clock_counts_a_shard_when_it_leaves_its_worker(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = [0.0]
    monkeypatch.setattr("lenspipe.forecast.stage_clock.time.monotonic", lambda: now[0])
    clock = StageClock("toy")
    clock.planned("score", 4, 40)
    clock.started("score")
    for when, depth, running in ((3.0, 2, 2), (4.0, 1, 2), (4.5, 1, 2), (6.0, 0, 1), (7.0, 0, 0)):
        now[0] = when
        clock.queue("score", depth, running)
    now[0] = 7.5
    clock.finished("score")
    times = clock.times["score"]
    assert times.ended == [4.0, 6.0, 6.0, 7.0]
    assert (times.start_up_s, times.seconds) == (3.0, 4.5)


@pytest.mark.parametrize(
    ("text", "seconds"), [("90m", 5400.0), ("48h", 172_800.0), ("1.5d", 129_600.0)]
)
def test_a_deadline_is_a_number_and_its_unit(text: str, seconds: float) -> None:
    assert seconds_of(text) == seconds


@pytest.mark.parametrize("text", ["48", "h", "-1h", "0h", "2 weeks"])
def test_other_deadlines_are_refused(text: str) -> None:
    with pytest.raises(InputError, match=r"^--deadline: expected a time such as 90m, 48h or 7d"):
        seconds_of(text)


def test_a_scratch_folder_that_is_none_is_refused(tmp_path: Path) -> None:
    from typer.testing import CliRunner

    from lenspipe.cli import app

    found = CliRunner().invoke(app, ["plan", "survey.yaml", "--scratch", str(tmp_path / "none")])
    assert isinstance(found.exception, InputError)
    assert str(found.exception).startswith("--scratch: expected a folder, found")
