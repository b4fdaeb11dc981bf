from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
import zarr

from lenspipe.catalogue.candidates import Rule, StampBatch, array_of
from lenspipe.contracts import InputSpec, failure_schema, score_schema
from lenspipe.run.commit_log import encode
from lenspipe.run.shard_record import Part, ShardRecord
from lenspipe.run.verify import verify
from lenspipe.run_directory import PLAN_RECORD, RUN, RunDirectory
from lenspipe.stages.planning import make_plan, read_plan, read_rows
from lenspipe.stages.publish import PublishSettings, publish
from tests.stages.test_planning import selected

SPEC = InputSpec("image", ("g", "r"), 4, 0.25, 25.0)
KEPT = "photometry_score"
SETTINGS = PublishSettings(
    "toy", Rule(top=4, keep=3), (SPEC,), ("red",), partition_rows=4, keep_columns=(KEPT,)
)
MEMBERS = ("resnet-a",)
SELECTED = "shards/select-00000000.jsonl"
FIRST, SECOND, THIRD = (f"shards/score-0000000{number}.jsonl" for number in range(3))


def begin(folder: Path, state: str) -> RunDirectory:
    """A run in order: 20 rows in, 12 selected, 11 scored, 1 failed."""
    run = RunDirectory(str(folder))
    content = {"state": state, "inputs": {"rows": 20}, "survey": {"cuts": {"red": "g > r"}}}
    run.write_json(RUN, content)
    part = run.write_part("select", 0, 20, selected(list(range(12)), [0] * 12))
    removed = {"network": 5, "cut:red:false": 3}
    counts = {"rows_in": 20, "rows_out": 12, "rows_failed": 0}
    run.commit(
        ShardRecord(
            stage="select", start=0, stop=20, removed=removed, parts={"select": part}, **counts
        )
    )
    make_plan(run, [part.name], 6, workers=1)
    for start, stop, failed in ((0, 6, 0), (6, 12, 1)):
        run.commit(score(run, start, stop, failed))
    return run


def score(run: RunDirectory, start: int, stop: int, failed: int) -> ShardRecord:
    rows = read_rows(run, (start, stop))
    scored = run.write_part("scores", start, stop, score_table(rows.slice(failed)))
    parts = {"scores": scored}
    if failed:
        parts["failures"] = run.write_part("failures", start, stop, failure_table(rows[:failed]))
    return ShardRecord(
        stage="score",
        start=start,
        stop=stop,
        rows_in=stop - start,
        rows_out=stop - start - failed,
        rows_failed=failed,
        reasons={"not_found": failed} if failed else {},
        parts=parts,
    )


def score_table(rows: pa.Table) -> pa.Table:
    n = rows.num_rows
    logit = rows["photometry_score"].to_numpy()
    values = {name: rows[name] for name in ("object_id", "ra", "dec", "healpix_29")}
    values |= {"score_resnet_a": logit, "score": logit, "probability": 1 / (1 + np.exp(-logit))}
    values |= {"flags": np.zeros(n, np.int32), "model_hash": ["0123456789abcdef"] * n}
    return pa.table(values, schema=score_schema(pa.int64(), MEMBERS))


def failure_table(rows: pa.Table) -> pa.Table:
    values = {name: rows[name] for name in ("object_id", "ra", "dec", "healpix_29")}
    told = {"stage": "score", "reason": "not_found", "detail": "no such tile"}
    values |= {name: [text] * rows.num_rows for name, text in told.items()}
    return pa.table(values, schema=failure_schema(pa.int64()))


def stamps(table: pa.Table) -> Iterator[StampBatch]:
    ids = table["object_id"].to_pylist()
    image = np.ones((len(ids), *SPEC.shape), np.float32)
    image *= np.arange(1, len(ids) + 1)[:, None, None, None]
    seen = np.ones((len(ids), 2), np.float32)
    yield StampBatch(ids, {"image": image}, image[:, 0], seen, [("resnet-a", 2)])


@pytest.fixture
def run(tmp_path: Path) -> RunDirectory:
    """A run whose shards are all committed, but that was not published yet."""
    return begin(tmp_path / "run", "running")


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that ended; tests work on copies."""
    folder = tmp_path_factory.mktemp("published")
    run = begin(folder, "done")
    with pytest.MonkeyPatch.context() as monkeypatch:
        # matplotlib takes seconds and is tested with the report.
        monkeypatch.setattr("lenspipe.report._pictures", lambda *_: (None, None))
        publish(run, SETTINGS, stamps)
    return folder


@pytest.fixture
def ended(published: Path, tmp_path: Path) -> RunDirectory:
    return RunDirectory(str(shutil.copytree(published, tmp_path / "ended")))


def shards(run: RunDirectory) -> list[ShardRecord]:
    return run.records("score")


def one(run: RunDirectory, folder: str, suffix: str) -> str:
    """The first file below a folder whose name ends so."""
    return next(name for name in run.store.names(folder) if name.endswith(suffix))


def edit(run: RunDirectory, name: str, change: Callable[[dict[str, Any]], None]) -> None:
    content = run.read_json(name)
    assert content is not None
    change(content)
    run.write_json(name, content)


def rewrite(run: RunDirectory, name: str, change: Callable[[pa.Table], pa.Table]) -> None:
    with run.store.writing(name) as path:
        pq.write_table(change(run.read_part(name)), path)


def other_ids(table: pa.Table) -> pa.Table:
    index = table.schema.get_field_index("object_id")
    return table.set_column(index, table.schema.field(index), pc.add(table["object_id"], 100))


def other_scores(table: pa.Table) -> pa.Table:
    index = table.schema.get_field_index("score")
    values = pc.add(table["score"], pa.scalar(1.0, pa.float32()))
    return table.set_column(index, table.schema.field(index), values)


def rewrite_records(run: RunDirectory, name: str, *records: ShardRecord) -> None:
    """Other records in a file of the log, sealed as if they belonged there."""
    run.store.write(name, encode(records))


def flip(run: RunDirectory, name: str) -> None:
    data = bytearray(run.store.read(name))
    data[len(data) // 2] ^= 1
    run.store.write(name, bytes(data))


def sign(run: RunDirectory, part: Part) -> Part:
    """Makes an entry of a record that of the file as it is now."""
    data = run.store.read(part.name)
    signed = {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    return part.model_copy(update=signed)


def sign_plan(run: RunDirectory, plan: dict[str, Any]) -> None:
    plan["files"] = [sign(run, Part(**file)).model_dump() for file in plan["files"]]


def sign_all(run: RunDirectory) -> None:
    edit(run, PLAN_RECORD, lambda plan: sign_plan(run, plan))
    for segment in list(run.segments("score")):
        [record] = segment.records
        parts = {folder: sign(run, part) for folder, part in record.parts.items()}
        rewrite_records(run, segment.name, record.model_copy(update={"parts": parts}))


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


def wrong_funnel(run: RunDirectory) -> None:
    edit(run, "funnel.json", lambda funnel: funnel.update(rejected=6))


def wrong_cut(run: RunDirectory) -> None:
    edit(run, "funnel.json", lambda funnel: funnel["cuts"]["red"].update(false=0, unknown=3))


def wrong_candidate_count(run: RunDirectory) -> None:
    edit(run, "funnel.json", lambda funnel: funnel.update(candidates=5))


def junk_funnel(run: RunDirectory) -> None:
    run.store.write("funnel.json", b"[1, 2]")


def lose_funnel(run: RunDirectory) -> None:
    run.store.delete("funnel.json")


def lose_dataset(run: RunDirectory) -> None:
    run.store.delete_folder("catalogue/dataset")


def lose_catalogue(run: RunDirectory) -> None:
    run.store.delete_folder("catalogue")


def lose_partition(run: RunDirectory) -> None:
    run.store.delete(one(run, "catalogue/dataset", ".parquet"))


def flip_partition(run: RunDirectory) -> None:
    name = one(run, "catalogue/dataset", ".parquet")
    data = bytearray(run.store.read(name))
    data[30] ^= 0xFF  # in the first page
    run.store.write(name, bytes(data))


def other_catalogue(run: RunDirectory) -> None:
    rewrite(run, one(run, "catalogue/dataset", ".parquet"), other_scores)


def wrong_properties(run: RunDirectory) -> None:
    text = run.store.read("catalogue/hats.properties").decode()
    run.store.write("catalogue/hats.properties", text.replace("nrows=11", "nrows=12").encode())


def junk_properties(run: RunDirectory) -> None:
    run.store.write("catalogue/hats.properties", b"\xff\xfe\x00")


def wrong_partitions(run: RunDirectory) -> None:
    run.store.write("catalogue/partition_info.csv", b"Norder,Npix\n0,6\n")


def lose_candidates(run: RunDirectory) -> None:
    run.store.delete_folder("candidates.zarr")


def store_of(run: RunDirectory) -> zarr.Group:
    return zarr.open_group(run.store.local_path("candidates.zarr"))


def wrong_candidate(run: RunDirectory) -> None:
    array_of(store_of(run), "object_id")[0] = 99


def lose_pixels(run: RunDirectory) -> None:
    run.store.delete_folder("candidates.zarr/images/image/c")


def cut_pixels(run: RunDirectory) -> None:
    name = one(run, "candidates.zarr/images/image/c", "0")
    run.store.write(name, run.store.read(name)[:5])


def junk_candidates(run: RunDirectory) -> None:
    run.store.write("candidates.zarr/zarr.json", b"{}")


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
        (wrong_funnel, "funnel.json: rejected: 6, the commit records give 5"),
        (wrong_cut, "funnel.json: cuts: "),
        (wrong_candidate_count, "funnel.json: candidates: 5, candidates.zarr says 4"),
        (junk_funnel, "funnel.json: expected an object"),
        (lose_funnel, "funnel.json: not there"),
        (lose_dataset, "catalogue/dataset/Norder="),
        (lose_catalogue, "catalogue/hats.properties: not there"),
        (lose_partition, "catalogue/dataset/Norder="),
        (flip_partition, "catalogue"),
        (other_catalogue, "catalogue/dataset: its rows are not those of scores/"),
        (wrong_properties, "catalogue/hats.properties: hats_nrows 12, found 11"),
        (junk_properties, "catalogue: cannot be read"),
        (wrong_partitions, "catalogue/dataset/Norder=0/Dir=0/Npix=6.parquet: lost: "),
        (lose_candidates, "candidates.zarr: not there"),
        (cut_pixels, "candidates.zarr: cannot be read"),
        (junk_candidates, "candidates.zarr: cannot be read"),
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
    found = verify(ended)
    assert any(line.startswith(place) for line in found), found
    assert all("\n" not in line for line in found)


@pytest.mark.parametrize(
    "name", ["notes.txt", "dataset/more.parquet", "dataset/data_thumbnail.parquet", "dataset/x/_x"]
)
def test_a_foreign_file_of_the_catalogue_is_named(ended: RunDirectory, name: str) -> None:
    ended.store.write(f"catalogue/{name}", b"x")
    assert verify(ended) == [f"catalogue/{name}: a file that the catalogue does not list"]


def test_a_partition_that_is_there_twice_is_named(ended: RunDirectory) -> None:
    """Readers that take all files of the dataset read its rows twice."""
    data = ended.store.read(one(ended, "catalogue/dataset", ".parquet"))
    for name in ("Norder=0/Dir=0/Npix=11.parquet", "Norder=0/Dir=10000/Npix=0.parquet"):
        ended.store.write(f"catalogue/dataset/{name}", data)
        place = f"catalogue/dataset/{name}"
        assert verify(ended) == [f"{place}: a file that the catalogue does not list"]
        ended.store.delete(place)


def test_what_tools_of_hats_leave_beside_the_data_is_not_foreign(ended: RunDirectory) -> None:
    for name in ("skymap.fits", "skymap.4.fits", "point_map.fits", "data_thumbnail.parquet"):
        ended.store.write(f"catalogue/{name}", b"x")
    assert verify(ended) == []


@pytest.mark.parametrize("name", ["_metadata", "_common_metadata"])
def test_a_summary_of_the_catalogue_that_is_lost_or_broken_is_named(
    ended: RunDirectory, name: str
) -> None:
    place = f"catalogue/dataset/{name}"
    with ended.store.writing(place) as path:
        pq.write_metadata(pa.schema([("object_id", pa.int64())]), path)
    columns = f"{place}: other columns than {one(ended, 'catalogue/dataset', '.parquet')} has"
    rows = [f"{place}: 0 rows, found 11"] if name == "_metadata" else []
    assert verify(ended) == [*rows, columns]
    ended.store.write(place, b"PAR1")
    [line] = verify(ended)
    assert line.startswith(f"{place}: damaged: ")
    ended.store.delete(place)
    assert verify(ended) == [f"{place}: lost"]


def unsealed(run: RunDirectory) -> zarr.Group:
    """Candidates as older runs wrote them, which do not say what was written."""
    group = store_of(run)
    del group.attrs["arrays_sha256"]
    group.attrs["content_sha256"] = "of another form"
    return group


def test_candidates_of_older_runs_are_held_against_the_scores(ended: RunDirectory) -> None:
    group = unsealed(ended)
    assert verify(ended) == []
    group.attrs["rule"] = Rule(top=3).model_dump(mode="json")
    assert verify(ended) == ["candidates.zarr: says 4 candidates, the scores give 3"]
    wrong_candidate(ended)
    lose_pixels(ended)
    assert verify(ended)[1:] == [
        "candidates.zarr/object_id: not that of the best among the scores",
        "candidates.zarr/images: no pixels of 3 candidates that are said to have them",
    ]


def change_first(group: zarr.Group, name: str) -> None:
    array = array_of(group, name)
    array[0] = np.asarray(array[0]) + 1


def swap_stamps(group: zarr.Group) -> None:
    array = array_of(group, "images/image")
    array[:] = np.asarray(array[:])[[1, 0, 2]]


def say_no_stamp(group: zarr.Group) -> None:
    array_of(group, "has_stamp")[2] = False


def other_rule(group: zarr.Group) -> None:
    group.attrs["rule"] = Rule(top=4, keep=3, fpr=0.5).model_dump(mode="json")


def other_bands(group: zarr.Group) -> None:
    array_of(group, "images/image").attrs["bands"] = ["r", "g"]


def lose_map(group: zarr.Group) -> None:
    del group["explanation"]


def foreign_array(group: zarr.Group) -> None:
    group.create_array("redshift", data=np.zeros(3))


def other_axes(group: zarr.Group) -> None:
    values = np.asarray(array_of(group, "embedding")[:])
    told = dict(array_of(group, "embedding").attrs)
    names = ("feature", "candidate")
    group.create_array(
        "embedding", data=values, dimension_names=names, attributes=told, overwrite=True
    )


@pytest.mark.parametrize(
    ("damage", "place"),
    [
        (partial(change_first, name=KEPT), f"/{KEPT}: not what"),
        (partial(change_first, name="embedding"), "/embedding: not what"),
        (partial(change_first, name="explanation"), "/explanation: not what"),
        (partial(change_first, name="images/image"), "/images/image: not what"),
        (partial(change_first, name="object_id"), "/object_id: not what"),
        (swap_stamps, "/images/image: not what"),
        (other_bands, "/images/image: not what"),
        (say_no_stamp, "/has_stamp: not what"),
        (other_rule, ": attributes: not what"),
        (lose_map, "/explanation: not what"),
        (other_axes, "/embedding: not what"),
        (foreign_array, "/redshift: was not"),
    ],
)
def test_candidates_are_held_against_their_digests(
    ended: RunDirectory, damage: Callable[[zarr.Group], None], place: str
) -> None:
    damage(store_of(ended))
    [line] = verify(ended)
    assert line.startswith(f"candidates.zarr{place} ")


def test_a_run_in_order_has_no_fault(run: RunDirectory, ended: RunDirectory) -> None:
    plan = read_plan(run)
    assert plan is not None
    assert plan.rows == 12
    assert verify(run) == []
    assert verify(ended) == []


def test_a_run_that_selected_nothing_has_no_fault(tmp_path: Path) -> None:
    run = RunDirectory(str(tmp_path / "run"))
    run.write_json(RUN, {"state": "done", "inputs": {"rows": 5}, "survey": {"cuts": {"red": "x"}}})
    removed = {"cut:red:unknown": 5}
    counts = {"rows_in": 5, "rows_out": 0, "rows_failed": 0}
    run.commit(ShardRecord(stage="select", start=0, stop=5, removed=removed, **counts))
    make_plan(run, [], 6, workers=1)
    publish(run, SETTINGS, stamps)
    assert verify(run) == []
    run.store.write("candidates.zarr/zarr.json", b"{}")
    assert any(line.startswith("candidates.zarr: ") for line in verify(run))


def test_products_of_a_run_that_goes_on_are_not_looked_at(ended: RunDirectory) -> None:
    """A resumed run may have taken shards back; what it published before is then out of date."""
    edit(ended, RUN, lambda told: told.update(state="running"))
    wrong_funnel(ended)
    lose_catalogue(ended)
    assert verify(ended) == []


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
    lose_funnel(ended)
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
