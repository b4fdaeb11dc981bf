from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pytest

from lenspipe.errors import CorruptRunError, LenspipeError, StoppedError
from lenspipe.metrics import RunMetrics
from lenspipe.run.ledger import GROUP_RECORDS, GROUP_S, Ledger
from lenspipe.run.lock import LockLostError, RunLock
from lenspipe.run.shard_record import ShardRecord
from lenspipe.run_directory import RunDirectory
from lenspipe.storage.patience import ATTEMPTS
from lenspipe.telling.events import Events
from lenspipe.telling.progress import SilentProgress


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


class Lock(RunLock):
    """A lock that may be lost at a word."""

    lost = False

    def check(self) -> None:
        if self.lost:
            raise LockLostError("lost")


def record(start: int) -> ShardRecord:
    counts = {"rows_in": 1, "rows_out": 1, "rows_failed": 0}
    return ShardRecord(stage="score", start=start, stop=start + 1, **counts)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def ledger(tmp_path: Path, clock: Callable[[], float]) -> Ledger:
    run = RunDirectory(str(tmp_path))
    events = Events(RunMetrics("toy"), SilentProgress())
    events.stage_started("score", 1000, 1000)
    return Ledger(run, Lock(run.store), events, clock)


def committed(ledger: Ledger) -> int:
    return len(RunDirectory(ledger.run.url).records("score"))


def told(ledger: Ledger) -> float:
    return float(
        ledger.events.metrics.registry.get_sample_value(
            "lenspipe_shards", {"stage": "score", "state": "done"}
        )
        or 0
    )


def test_slow_shards_are_committed_at_once(ledger: Ledger, clock: Clock) -> None:
    for start in range(3):
        ledger.commit(record(start))
        assert committed(ledger) == start + 1
        clock.now += GROUP_S


def test_quick_shards_wait_for_a_second_and_are_then_written_together(
    ledger: Ledger, clock: Clock
) -> None:
    for start in range(10):
        ledger.commit(record(start))
    assert (committed(ledger), told(ledger)) == (1, 1.0)
    clock.now += GROUP_S
    ledger.flush_if_due()
    assert (committed(ledger), told(ledger)) == (10, 10.0)
    assert len(ledger.run.store.names("shards")) == 2


def test_no_more_than_a_group_waits(ledger: Ledger) -> None:
    for start in range(1 + GROUP_RECORDS):
        ledger.commit(record(start))
    assert committed(ledger) == 1 + GROUP_RECORDS


def test_at_the_end_of_a_stage_nothing_waits(ledger: Ledger) -> None:
    with ledger.gathering():
        for start in range(5):
            ledger.commit(record(start))
    assert committed(ledger) == 5


def test_what_waits_is_written_when_the_stage_fails_or_is_ended(ledger: Ledger) -> None:
    with pytest.raises(KeyboardInterrupt), ledger.gathering():
        for start in range(5):
            ledger.commit(record(start))
        raise KeyboardInterrupt
    assert committed(ledger) == 5


def test_a_signal_between_write_and_note_commits_nothing_twice(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    noted, calls = ledger._told, []

    def told() -> None:
        calls.append(1)
        if len(calls) == 1:
            raise SystemExit(143)  # where the handler of a signal raises
        noted()

    monkeypatch.setattr(ledger, "_told", told)
    with pytest.raises(SystemExit), ledger.gathering():
        ledger.commit(record(0))
    assert len(calls) == 2
    assert committed(ledger) == 1


def test_who_lost_the_lock_writes_nothing_more(ledger: Ledger, clock: Clock) -> None:
    with pytest.raises(LenspipeError, match="lost"), ledger.gathering():
        ledger.commit(record(0))
        ledger.commit(record(1))
        assert isinstance(ledger.lock, Lock)
        ledger.lock.lost = True
        clock.now += GROUP_S
        ledger.commit(record(2))
    assert committed(ledger) == 1


def test_a_committed_file_that_is_gone_is_not_waited_for(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    rests: list[float] = []
    monkeypatch.setattr("lenspipe.storage.patience.sleep", rests.append)
    part = ledger.run.write_part("scores", 0, 1, pa.table({"x": [1]}))
    ledger.commit(record(0).model_copy(update={"parts": {"scores": part}}))
    with pytest.raises(StoppedError, match="the same command resumes"):
        ledger.patiently(lambda: ledger.run.store.read("elsewhere"))
    assert len(rests) == ATTEMPTS - 1
    ledger.run.store.delete(part.name)
    with pytest.raises(CorruptRunError, match=rf"^{part.name}: lost: .* rows 0 to 1 .*--retry-fai"):
        ledger.patiently(lambda: ledger.run.read_part(part.name))
    assert len(rests) == ATTEMPTS - 1


def test_workers_that_stop_for_a_lost_plan_are_told_as_that(ledger: Ledger) -> None:
    plan = {"files": [{"name": "plan/selected-000000.parquet"}]}
    ledger.run.write_json("plan/plan.json", plan)
    with (
        pytest.raises(CorruptRunError, match=r"^plan/selected-000000\.parquet: lost: .* --fresh"),
        ledger.gathering(),
    ):
        raise StoppedError("storage failed 6 times; the same command resumes")
    ledger.run.store.write("plan/selected-000000.parquet", b"x")
    with pytest.raises(StoppedError, match="storage failed"), ledger.gathering():
        raise StoppedError("storage failed 6 times; the same command resumes")
    assert isinstance(ledger.lock, Lock)
    ledger.lock.lost = True  # who took the run over may have erased it
    ledger.run.store.delete("plan/selected-000000.parquet")
    with pytest.raises(LockLostError), ledger.gathering():
        raise StoppedError("storage failed 6 times; the same command resumes")
