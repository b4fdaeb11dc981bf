from __future__ import annotations

import io
import json
from collections.abc import Iterator
from typing import Any

import pytest

from lenspipe.run_directory import ShardRecord
from lenspipe.telling.progress import (
    LINE_INTERVAL_S,
    BarProgress,
    JsonProgress,
    make_progress,
)


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def record(start: int, rows: int = 10, failed: int = 0) -> ShardRecord:
    return ShardRecord(
        stage="score",
        start=start,
        stop=start + rows,
        rows_in=rows,
        rows_out=rows - failed,
        rows_failed=failed,
    )


def lines(stream: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_a_stage_as_json_lines() -> None:
    clock, stream = Clock(), io.StringIO()
    progress = JsonProgress(stream, clock)
    progress.stage_started("score", 100, 20)
    clock.now = 10
    progress.committed(record(20, failed=2))
    progress.retried("score", "worker died", "30-40")
    progress.split("score", "again", "40-50")
    progress.message("look here")
    progress.stage_finished("score")
    told = lines(stream)
    assert [line["event"] for line in told] == [
        "stage_started",
        "shard_committed",
        "shard_retried",
        "shard_split",
        "message",
        "stage_finished",
    ]
    assert told[0]["done_rows"] == 20
    committed = told[1]
    assert (committed["stage"], committed["rows_out"], committed["rows_failed"]) == ("score", 8, 2)
    assert (committed["done_rows"], committed["total_rows"]) == (30, 100)
    assert (committed["rows_per_second"], committed["eta_seconds"]) == (1.0, 70.0)
    assert [line.get("shard") for line in told[1:4]] == ["20-30", "30-40", "40-50"]
    assert all(line["time"].endswith("+00:00") for line in told)


def test_every_line_names_its_run() -> None:
    stream = io.StringIO()
    progress = JsonProgress(stream)
    progress.note("checking")
    progress.run_started("demo", "run/")
    progress.stage_started("score", 10, 0)
    progress.message("look here")
    assert [line.get("run") for line in lines(stream)] == [None, "demo", "demo", "demo"]


def test_many_commits_are_few_lines_that_lose_none() -> None:
    clock, stream = Clock(), io.StringIO()
    progress = JsonProgress(stream, clock)
    progress.stage_started("score", 100_000, 0)
    for index in range(10_000):
        clock.now += 20 * LINE_INTERVAL_S / 10_000
        progress.committed(record(10 * index))
    progress.stage_finished("score")
    commits = [line for line in lines(stream) if line["event"] == "shard_committed"]
    assert 20 <= len(commits) <= 22
    assert sum(line["shards"] for line in commits) == 10_000
    assert commits[-1]["done_rows"] == 100_000


def test_a_run_that_ends_badly_tells_what_it_committed() -> None:
    clock, stream = Clock(), io.StringIO()
    progress = JsonProgress(stream, clock)
    progress.stage_started("score", 100, 0)
    progress.committed(record(0))
    progress.committed(record(10))
    progress.close()
    assert [line["done_rows"] for line in lines(stream)[1:]] == [10, 20]


def test_what_was_resumed_is_not_told_again() -> None:
    stream = io.StringIO()
    progress = JsonProgress(stream)
    progress.stage_started("score", 100, 10)
    progress.committed(record(0), resumed=True)
    assert [line["event"] for line in lines(stream)] == ["stage_started"]


@pytest.fixture
def bars() -> Iterator[tuple[BarProgress, Terminal, Clock]]:
    clock, stream = Clock(), Terminal()
    progress = BarProgress(stream, clock)
    yield progress, stream, clock
    progress.close()


def test_bars_tell_rows_rate_and_failures(
    bars: tuple[BarProgress, Terminal, Clock], monkeypatch: pytest.MonkeyPatch
) -> None:
    progress, stream, clock = bars
    monkeypatch.setenv("COLUMNS", "160")
    progress.stage_started("score", 100, 50)
    clock.now = 5
    progress.committed(record(50, failed=3))
    progress.message("[not markup]")
    progress.stage_finished("score")
    progress.close()
    shown = stream.getvalue()
    assert "60/100" in shown
    assert "2/s" in shown
    assert "3 failed" in shown
    assert "[not markup]" in shown


def test_a_terminal_gets_bars_and_a_log_gets_lines() -> None:
    for stream, kind in ((Terminal(), BarProgress), (io.StringIO(), JsonProgress)):
        with make_progress(stream) as progress:
            assert type(progress) is kind


def test_an_error_leaves_nothing_untold() -> None:
    stream = io.StringIO()
    with pytest.raises(KeyboardInterrupt), make_progress(stream) as progress:
        progress.stage_started("score", 30, 0)
        progress.committed(record(0))
        progress.committed(record(10))
        raise KeyboardInterrupt
    assert lines(stream)[-1]["done_rows"] == 20


def test_a_run_and_its_silent_phases_are_told() -> None:
    log, terminal = io.StringIO(), Terminal()
    for stream in (log, terminal):
        with make_progress(stream) as progress:
            progress.run_started("demo", "s3://bucket/run")
            progress.note("planning shards")
            progress.run_finished("done", {"scored": 1200, "failed": 0})
    assert [line["event"] for line in lines(log)] == ["run_started", "note", "run_finished"]
    started, note, finished = lines(log)
    assert (started["name"], started["output"]) == ("demo", "s3://bucket/run")
    assert note["text"] == "planning shards"
    assert (finished["state"], finished["counts"]) == ("done", {"scored": 1200, "failed": 0})
    shown = terminal.getvalue()
    assert "demo: running in s3://bucket/run" in shown
    assert "done: 1,200 scored, 0 failed" in shown
