"""A log from elsewhere as the run itself would have shown it."""

from __future__ import annotations

import io
import json
import re
from typing import Any

import pytest

from lenspipe.telling.job_log import JobLog
from lenspipe.telling.progress import BarProgress, JsonProgress
from tests.telling.test_progress import Clock, Terminal, record

BEGUN = "Running entrypoint for job lenspipe-toy-1: survey=…\n"


def shown(text: str, err: io.StringIO, failed: bool = False, step: int = 7) -> tuple[str, str]:
    out = io.StringIO()
    log = JobLog(out, err)
    for k in range(0, len(text), step):
        log.feed(text[k : k + step])
    why = log.close(failed)
    return out.getvalue(), why


def told_by_a_run(clock: Clock) -> str:
    stream = io.StringIO()
    progress = JsonProgress(stream, clock)
    progress.run_started("toy", "s3://bucket/run")
    progress.note("checking")
    progress.stage_started("score", 100, 20)
    clock.now = 10
    progress.committed(record(20, failed=2))
    progress.retried("score", "worker died")
    progress.split("score", "again")
    progress.message("look here")
    progress.stage_finished("score")
    progress.run_finished("done", {"scored": 8})
    return stream.getvalue()


def test_events_go_to_standard_error_and_the_rest_to_standard_output() -> None:
    events = told_by_a_run(Clock())
    out, err = io.StringIO(), io.StringIO()
    log = JobLog(out, err)
    log.feed(f"{BEGUN}{events}scored  8\ncatalogue  s3://…")
    assert log.close(failed=False) == ""
    assert err.getvalue() == events
    assert out.getvalue() == "scored  8\ncatalogue  s3://…\n"


@pytest.mark.parametrize("step", [1, 7, 10_000])
def test_why_a_run_failed_is_handed_back_and_not_printed(step: int) -> None:
    out, why = shown(f"{BEGUN}first\nerror: output: expected …\n", io.StringIO(), True, step)
    assert (out, why) == ("first\n", "error: output: expected …")


def test_what_ray_says_before_the_run_is_a_message() -> None:
    err = io.StringIO()
    out, _ = shown(f"2026 INFO Runtime env is setting up.\n{BEGUN}", err)
    assert out == ""
    [line] = err.getvalue().splitlines()
    assert json.loads(line)["text"] == "2026 INFO Runtime env is setting up."


def test_what_would_steer_a_terminal_is_shown_as_text() -> None:
    out, err = io.StringIO(), io.StringIO()
    log = JobLog(out, err)
    log.feed(f'{BEGUN}a\tb \x1b[2J\n{{"event": "note", "text": "\u202e"}}\n')
    log.close(failed=False)
    assert out.getvalue() == "a       b \\u001b[2J\n"
    assert err.getvalue() == '{"event": "note", "text": "\\u202e"}\n'


def stamped(event: dict[str, Any], second: int) -> str:
    return json.dumps({**event, "time": f"2026-11-30T12:00:{second:02d}.000+00:00"})


def test_on_a_terminal_there_are_bars_at_the_speed_of_the_run(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The whole log comes in at once, as for whoever joins late."""
    monkeypatch.setenv("COLUMNS", "160")
    content = [json.loads(line) for line in told_by_a_run(Clock()).splitlines()]
    text = "\n".join(stamped(event, k) for k, event in enumerate(content))
    terminal = Terminal()
    out, _ = shown(f"{BEGUN}{text}\n", terminal)
    told = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", terminal.getvalue())
    assert out == ""
    assert "toy: running in s3://bucket/run" in told
    assert "score: a shard is tried again: worker died" in told
    assert "look here" in told
    # 10 rows between the starting of the stage (second 2) and its end (second 7).
    assert "30/100 2/s, 2 failed" in told
    assert "done: 8 scored" in told


def test_an_event_of_another_version_is_shown_as_it_is() -> None:
    terminal = Terminal()
    shown(f'{BEGUN}{{"event": "shard_mended", "x": 1}}\n{{"event": "note"}}\n', terminal)
    assert "shard_mended" in terminal.getvalue()
    assert '{"event": "note"}' in terminal.getvalue()


def test_a_display_of_bars_is_left_in_order_when_it_is_closed_twice() -> None:
    log = JobLog(io.StringIO(), Terminal())
    log.close(failed=True)
    log.close(failed=False)
    BarProgress(Terminal()).close()
