from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pytest

from lenspipe.errors import CorruptRunError
from lenspipe.run_directory import RunDirectory, ShardRecord
from tests.run.test_commit_log import LaggingStore


def record(run: RunDirectory, start: int, stop: int) -> ShardRecord:
    rows = stop - start
    part = run.write_part("scores", start, stop, pa.table({"x": list(range(rows))}))
    return ShardRecord(
        stage="score",
        start=start,
        stop=stop,
        rows_in=rows,
        rows_out=rows,
        rows_failed=0,
        parts={"scores": part},
    )


def test_only_what_a_record_names_exists(tmp_path: Path) -> None:
    run = RunDirectory(str(tmp_path))
    committed = record(run, 0, 4)
    run.commit(committed)
    abandoned = record(run, 4, 9)
    again = record(run, 0, 4)  # another attempt at the same rows
    assert run.records("score") == [committed]
    assert run.part_names("scores", run.records("score")) == [committed.parts["scores"].name]
    assert set(run.clean()) == {abandoned.parts["scores"].name, again.parts["scores"].name}
    found = run.read_folder("scores", ["score"])
    assert found is not None
    assert found["x"].to_pylist() == [0, 1, 2, 3]


def test_a_record_that_does_not_balance_is_not_committed(tmp_path: Path) -> None:
    run = RunDirectory(str(tmp_path))
    with pytest.raises(CorruptRunError, match="rows in and out differ"):
        run.commit(record(run, 0, 4).model_copy(update={"rows_in": 5}))
    assert run.records("score") == []


def test_erasing_a_run_leaves_what_is_not_its_own(tmp_path: Path) -> None:
    run = RunDirectory(str(tmp_path))
    run.commit(record(run, 0, 4))
    run.write_json("run.json", {})
    run.store.write("notes.txt", b"mine")
    run.erase()
    assert run.store.names() == ["notes.txt"]


@pytest.mark.parametrize("hidden", [0, 1, 2])
def test_an_erased_run_has_no_commit_that_a_listing_hid(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, hidden: int
) -> None:
    monkeypatch.setattr("lenspipe.run_directory.Store", LaggingStore)
    run = RunDirectory(str(tmp_path))
    for start in range(3):
        run.commit(record(run, start, start + 1))
    assert isinstance(run.store, LaggingStore)
    run.store.hidden = (f"shards/score-{hidden:08d}.jsonl",)
    run.erase()
    assert RunDirectory(str(tmp_path)).records("score") == []


@pytest.mark.parametrize("end", ["clean", "erase"])
def test_products_that_a_kill_left_aside_are_removed(tmp_path: Path, end: str) -> None:
    run = RunDirectory(str(tmp_path))
    for product in ("catalogue", "candidates.zarr"):
        run.store.write(f"{product}.tmp-0123456789ab/dataset/part", b"half")
    run.clean() if end == "clean" else run.erase()
    assert list(tmp_path.iterdir()) == []


def test_commits_are_taken_back_by_reason_and_the_others_stay(tmp_path: Path) -> None:
    run = RunDirectory(str(tmp_path))
    kept, unreadable = record(run, 0, 4), record(run, 4, 9)
    failed = {"rows_out": 4, "rows_failed": 1, "reasons": {"unreadable": 1}}
    run.commit(kept, unreadable.model_copy(update=failed))
    assert run.forget("score", frozenset({"not_found"})) == 0
    assert run.forget("score", frozenset({"unreadable"})) == 1
    assert run.records("score") == [kept]
    again = record(run, 4, 9)
    run.commit(again)
    assert RunDirectory(str(tmp_path)).records("score") == [kept, again]
    assert run.clean() == [unreadable.parts["scores"].name]
