from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pytest

from lenspipe.planning import make_plan, read_plan, read_rows
from lenspipe.run_directory import RunDirectory, ShardRecord
from lenspipe.verify import verify
from tests.test_planning import selected


@pytest.fixture
def run(tmp_path: Path) -> RunDirectory:
    """A small run whose every file is right: 20 rows in, 12 selected, 11 scored, 1 failed."""
    run = RunDirectory(str(tmp_path / "run"))
    run.write_json("run.json", {"inputs": {"rows": 20}})
    part = run.write_part("select", 0, 20, selected(list(range(12)), [0] * 12))
    run.commit(
        ShardRecord(
            stage="select",
            start=0,
            stop=20,
            rows_in=20,
            rows_out=12,
            rows_failed=0,
            removed={"network": 8},
            parts={"select": part},
        )
    )
    make_plan(run, [part.name], 6, workers=1)
    for start, stop, failed in ((0, 6, 0), (6, 12, 1)):
        run.commit(score(run, start, stop, failed))
    return run


def score(run: RunDirectory, start: int, stop: int, failed: int) -> ShardRecord:
    rows = read_rows(run, (start, stop))
    scored = run.write_part("scores", start, stop, rows.slice(failed))
    parts = {"scores": scored}
    if failed:
        parts["failures"] = run.write_part("failures", start, stop, rows.slice(0, failed))
    return ShardRecord(
        stage="score",
        start=start,
        stop=stop,
        rows_in=stop - start,
        rows_out=stop - start - failed,
        rows_failed=failed,
        parts=parts,
    )


def shards(run: RunDirectory) -> list[ShardRecord]:
    return run.records("score")


def test_a_run_in_order_has_no_fault(run: RunDirectory) -> None:
    plan = read_plan(run)
    assert plan is not None
    assert plan.rows == 12
    assert verify(run) == []


def test_a_lost_part_is_named(run: RunDirectory) -> None:
    name = shards(run)[0].parts["scores"].name
    run.store.delete(name)
    assert any(line.startswith(f"{name}: lost") for line in verify(run))


def test_a_flipped_bit_is_named(run: RunDirectory) -> None:
    name = shards(run)[0].parts["scores"].name
    data = bytearray(run.store.read(name))
    data[len(data) // 2] ^= 1
    run.store.write(name, bytes(data))
    assert any(line.startswith(f"{name}: changed") for line in verify(run))


def test_a_missing_record_is_a_gap(run: RunDirectory) -> None:
    run.store.delete(shards(run)[1].name)
    assert "score: no commit for rows 6 to 12 of the plan" in verify(run)


def test_a_foreign_file_is_named(run: RunDirectory) -> None:
    run.store.write("scores/part-by-hand.parquet", b"x")
    assert verify(run) == ["scores/part-by-hand.parquet: a file that no commit record names"]


def test_rows_that_count_twice_are_found(run: RunDirectory) -> None:
    run.commit(score(run, 3, 6, 0))
    assert any("commits overlap" in line for line in verify(run))


def test_a_source_scored_twice_and_one_lost_are_named(run: RunDirectory) -> None:
    first = shards(run)[0]
    table = run.read_part(first.parts["scores"].name)
    lost = table["object_id"][0].as_py()
    twice = table["object_id"][1].as_py()
    ids = pc.if_else(pc.equal(table["object_id"], lost), pa.scalar(twice), table["object_id"])
    part = run.write_part("scores", 0, 6, table.set_column(0, "object_id", ids))
    run.store.delete(first.parts["scores"].name)
    run.commit(first.model_copy(update={"parts": {"scores": part}}))
    found = verify(run)
    assert f"object_id {lost}: selected 1 times, scored 0 times, failed 0 times" in found
    assert f"object_id {twice}: selected 1 times, scored 2 times, failed 0 times" in found


def test_a_folder_that_is_no_run_is_said_to_be_none(tmp_path: Path) -> None:
    assert verify(RunDirectory(str(tmp_path)))[0].startswith("run.json: not there")
