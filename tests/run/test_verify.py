from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pytest

from lenspipe.run.shard_record import ShardRecord
from lenspipe.run.verify import verify
from lenspipe.run_directory import PLAN_RECORD, RUN, RunDirectory
from lenspipe.stages.planning import make_plan, read_plan
from lenspipe.stages.publish import publish
from tests.run.ended_run import (
    MODEL_HASH,
    SETTINGS,
    assert_told,
    edit,
    flip,
    rewrite,
    rewrite_records,
    score,
    shards,
    sign_all,
    stamps,
)

SELECTED = "shards/select-00000000.jsonl"
FIRST, SECOND, THIRD = (f"shards/score-0000000{number}.jsonl" for number in range(3))


def other_ids(table: pa.Table) -> pa.Table:
    index = table.schema.get_field_index("object_id")
    return table.set_column(index, table.schema.field(index), pc.add(table["object_id"], 100))


def flip_plan(run: RunDirectory) -> None:
    flip(run, "plan/selected-000000.parquet")


def cut_plan(run: RunDirectory) -> None:
    name = "plan/selected-000000.parquet"
    run.store.write(name, run.store.read(name)[:100])


def move_ids(run: RunDirectory) -> None:
    """Plan, scores and failures agree with each other, and with their checksums."""
    for folder in ("plan", "scores", "failures"):
        for name in run.store.names(folder):
            if name.endswith(".parquet"):
                rewrite(run, name, other_ids)
    sign_all(run)


def move_positions(run: RunDirectory) -> None:
    """The plan's ids are those of select, but their positions are not."""

    def east(table: pa.Table) -> pa.Table:
        return table.set_column(1, table.schema.field("ra"), pc.add(table["ra"], 1.0))

    rewrite(run, "plan/selected-000000.parquet", east)
    sign_all(run)


def junk_plan(run: RunDirectory) -> None:
    run.store.write(PLAN_RECORD, b'{"rows": 12')


def lose_plan(run: RunDirectory) -> None:
    run.store.delete(PLAN_RECORD)


def lose_plan_file(run: RunDirectory) -> None:
    run.store.delete("plan/selected-000000.parquet")


def foreign_plan_file(run: RunDirectory) -> None:
    run.store.write("plan/selected-000001.parquet", b"x")


def flip_scores(run: RunDirectory) -> None:
    flip(run, shards(run)[0].parts["scores"].name)


def junk_scores(run: RunDirectory) -> None:
    """The record fits the file, but the file is no Parquet."""
    run.store.write(shards(run)[0].parts["scores"].name, b"junk")
    sign_all(run)


def junk_record(run: RunDirectory) -> None:
    run.store.write(FIRST, b"\xff")


def cut_record(run: RunDirectory) -> None:
    run.store.write(FIRST, run.store.read(FIRST)[:-20])


def cut_after_a_line(run: RunDirectory) -> None:
    run.store.write(FIRST, run.store.read(FIRST).splitlines(keepends=True)[0])


def empty_record(run: RunDirectory) -> None:
    run.store.write(FIRST, b"")


def changed_record(run: RunDirectory) -> None:
    run.store.write(FIRST, run.store.read(FIRST).replace(b'"rows_out":6', b'"rows_out":5'))


def lose_record_file(run: RunDirectory) -> None:
    run.store.delete(FIRST)


def lose_select_record(run: RunDirectory) -> None:
    run.store.delete(SELECTED)


def record_twice(run: RunDirectory) -> None:
    run.store.write(THIRD, run.store.read(SECOND))


def foreign_record(run: RunDirectory) -> None:
    run.store.write("shards/notes.json", b"{}")


def record_under_another_name(run: RunDirectory) -> None:
    run.store.write("shards/score-00000004.jsonl", run.store.read(SECOND))
    run.store.delete(SECOND)


def record_of_other_rows(run: RunDirectory) -> None:
    change = {"rows_in": 7, "removed": {"x": 1}}
    rewrite_records(run, FIRST, shards(run)[0].model_copy(update=change))


def erasing(run: RunDirectory) -> None:
    run.write_json(RUN, {"state": "erasing"})


def unknown_state(run: RunDirectory) -> None:
    edit(run, RUN, lambda told: told.update(state="dome"))


def empty_run(run: RunDirectory) -> None:
    run.store.write(RUN, b"{}")


def list_run(run: RunDirectory) -> None:
    run.store.write(RUN, b"[]")


def null_run(run: RunDirectory) -> None:
    run.store.write(RUN, b"null")


def junk_run(run: RunDirectory) -> None:
    run.store.write(RUN, b"\xff")


@pytest.mark.parametrize(
    ("damage", "place"),
    [
        (flip_plan, "plan/selected-000000.parquet: changed"),
        (cut_plan, "plan/selected-000000.parquet: changed"),
        (lose_plan_file, "plan/selected-000000.parquet: lost"),
        (foreign_plan_file, "plan/selected-000001.parquet: a file that no record names"),
        (move_ids, "object_id 0: times selected 1, planned 0, scored 0, failed 0"),
        (move_positions, "plan: its rows are not those of select/"),
        (junk_plan, "plan/plan.json: "),
        (lose_plan, "plan/plan.json: not made yet"),
        (flip_scores, "scores/part-"),
        (junk_scores, "scores/part-"),
        (junk_record, f"{FIRST}: line 1"),
        (cut_record, f"{FIRST}: line 2"),
        (cut_after_a_line, f"{FIRST}: line 1"),
        (empty_record, f"{FIRST}: line 0"),
        (changed_record, f"{FIRST}: changed"),
        (lose_record_file, f"{FIRST}: lost"),
        (lose_select_record, "select: no commit for rows 0 to 20 of the catalogue"),
        (record_twice, f"{THIRD}: score rows 6 to 12: count twice: {SECOND} has rows 6 to 12"),
        (foreign_record, "shards/notes.json: a file that no record names"),
        (record_under_another_name, f"{SECOND}: lost"),
        (record_of_other_rows, f"{FIRST}: score rows 0 to 6: 7 rows in, of 6"),
        (erasing, "run.json: state: "),
        (unknown_state, "run.json: state: Input should be 'running', 'done'"),
        (empty_run, "run.json: state: Field required"),
        (list_run, "run.json: "),
        (null_run, "run.json: "),
        (junk_run, "run.json: "),
    ],
)
def test_each_damage_is_found_and_told_with_its_place(
    ended: RunDirectory, damage: Callable[[RunDirectory], None], place: str
) -> None:
    damage(ended)
    assert_told(ended, place)


def test_a_run_in_order_has_no_fault(run: RunDirectory, ended: RunDirectory) -> None:
    plan = read_plan(run)
    assert plan is not None
    assert plan.rows == 12
    assert verify(run) == []
    assert verify(ended) == []


def test_a_run_that_selected_nothing_has_no_fault(tmp_path: Path) -> None:
    run = RunDirectory(str(tmp_path / "run"))
    content = {"state": "done", "inputs": {"rows": 5}, "survey": {"cuts": {"red": "x"}}}
    run.write_json(RUN, {**content, "models": {"ensemble": MODEL_HASH}})
    removed = {"cut:red:unknown": 5}
    counts = {"rows_in": 5, "rows_out": 0, "rows_failed": 0}
    run.commit(ShardRecord(stage="select", start=0, stop=5, removed=removed, **counts))
    make_plan(run, [], 6, workers=1)
    publish(run, SETTINGS, stamps)
    assert verify(run) == []
    run.store.write("candidates.zarr/zarr.json", b"{}")
    assert any(line.startswith("candidates.zarr: ") for line in verify(run))


def test_another_ensemble_than_that_of_the_scores_is_told(ended: RunDirectory) -> None:
    edit(ended, RUN, lambda told: told["models"].update(ensemble="f" * 16))
    told = f"run.json: models.ensemble: '{'f' * 16}', but 11 rows of scores/ have '{MODEL_HASH}'"
    assert verify(ended) == [told]


def test_scores_of_another_ensemble_are_told(run: RunDirectory) -> None:
    def other_model(table: pa.Table) -> pa.Table:
        at = table.schema.get_field_index("model_hash")
        return table.set_column(at, table.schema.field(at), pa.array(["f" * 16] * len(table)))

    rewrite(run, shards(run)[1].parts["scores"].name, other_model)
    sign_all(run)
    told = f"run.json: models.ensemble: '{MODEL_HASH}', but 5 rows of scores/ have '{'f' * 16}'"
    assert verify(run) == [told]


def test_other_cuts_than_those_of_the_records_are_told(ended: RunDirectory) -> None:
    edit(ended, RUN, lambda told: told["survey"].update(cuts={"rouge": "g > r"}))
    assert verify(ended) == [
        "run.json: survey.cuts: expected 'red', which commit records have; found none",
        "run.json: survey.cuts: 'rouge' is in no commit record",
    ]


def test_a_lost_part_is_named(run: RunDirectory) -> None:
    name = shards(run)[0].parts["scores"].name
    run.store.delete(name)
    assert any(line.startswith(f"{name}: lost") for line in verify(run))


def test_a_missing_record_is_a_gap(run: RunDirectory) -> None:
    run.store.delete(SECOND)
    assert "score: no commit for rows 6 to 12 of the plan" in verify(run)


def test_a_commit_beyond_the_end_is_named(run: RunDirectory) -> None:
    record = score(run, 6, 12, 0).model_copy(update={"start": 12, "stop": 18})
    run.commit(record)
    place = "shards/score-00000002.jsonl: score rows 12 to 18"
    assert f"{place}: beyond the 12 rows of the plan" in verify(run)


def test_a_foreign_file_is_named(run: RunDirectory) -> None:
    run.store.write("scores/part-by-hand.parquet", b"x")
    assert verify(run) == ["scores/part-by-hand.parquet: a file that no record names"]


def test_a_foreign_file_hides_no_loss(ended: RunDirectory) -> None:
    ended.store.write("plan/todo.txt", b"x")
    lost = next(n for n in ended.store.names("catalogue") if "Npix" in n)
    ended.store.delete(lost)
    found = verify(ended)
    assert "plan/todo.txt: a file that no record names" in found
    assert any(line.startswith("catalogue") for line in found)


def test_rows_that_count_twice_are_found(run: RunDirectory) -> None:
    run.commit(score(run, 3, 6, 0))
    found = verify(run)
    assert f"{THIRD}: score rows 3 to 6: count twice: {FIRST} has rows 0 to 6" in found
    assert len([line for line in found if line.startswith("object_id")]) == 3


def test_rows_that_count_twice_hide_no_other_fault(ended: RunDirectory) -> None:
    record_twice(ended)
    flip_scores(ended)
    ended.store.delete("funnel.json")
    found = verify(ended)
    for place in (THIRD, "scores/part-", "funnel.json: not there"):
        assert any(line.startswith(place) for line in found), found


def test_a_source_scored_twice_and_one_lost_are_named(run: RunDirectory) -> None:
    first = shards(run)[0]
    table = run.read_part(first.parts["scores"].name)
    lost = table["object_id"][0].as_py()
    twice = table["object_id"][1].as_py()
    ids = pc.if_else(pc.equal(table["object_id"], lost), pa.scalar(twice), table["object_id"])
    part = run.write_part("scores", 0, 6, table.set_column(0, "object_id", ids))
    run.store.delete(first.parts["scores"].name)
    rewrite_records(run, FIRST, first.model_copy(update={"parts": {"scores": part}}))
    assert verify(run) == [
        f"object_id {object_id}: times selected 1, planned 1, scored {times}, failed 0"
        for object_id, times in sorted([(lost, 0), (twice, 2)])
    ]


def test_a_folder_that_is_no_run_is_said_to_be_none(tmp_path: Path) -> None:
    assert verify(RunDirectory(str(tmp_path)))[0].startswith("run.json: not there")
