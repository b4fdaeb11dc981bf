from __future__ import annotations

import hashlib
import uuid
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lenspipe.contracts import InputSpec, selected_schema
from lenspipe.errors import CorruptRunError
from lenspipe.healpix import healpix_29
from lenspipe.run_directory import PLAN_RECORD, RunDirectory
from lenspipe.stages import planning
from lenspipe.stages.planning import SHARD_BYTES, make_plan, most_rows, read_plan, read_rows
from lenspipe.storage import external_sort


def selected(ids: list[int], localities: list[int], seed: int = 0) -> pa.Table:
    rng = np.random.default_rng(seed)
    rows = len(ids)
    ra_deg, dec_deg = rng.uniform(0, 360, rows), rng.uniform(-90, 90, rows)
    columns = {
        "object_id": pa.array(ids, pa.int64()),
        "ra": ra_deg,
        "dec": dec_deg,
        "healpix_29": healpix_29(ra_deg, dec_deg),
        "photometry_score": rng.normal(size=rows).astype(np.float32),
        "locality": pa.array(localities, pa.int64()),
    }
    return pa.table(columns, schema=selected_schema(pa.int64()))


def write(run: RunDirectory, tables: list[pa.Table]) -> list[str]:
    return [run.write_part("select", k, k + 1, table).name for k, table in enumerate(tables)]


@settings(
    max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    st.lists(st.tuples(st.integers(0, 60), st.integers(-1, 5)), min_size=1, max_size=120),
    st.integers(1, 40),
)
def test_every_row_is_planned_once_and_repeats_are_marked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rows: list[tuple[int, int]], shard: int
) -> None:
    monkeypatch.setattr(planning, "PLAN_FILE_ROWS", 32)
    monkeypatch.setattr(planning, "ROW_GROUP_ROWS", 8)
    monkeypatch.setattr(planning, "MIN_SHARD_ROWS", shard)
    run = RunDirectory(str(tmp_path / str(abs(hash((tuple(rows), shard))))))
    ids, localities = [row[0] for row in rows], [row[1] for row in rows]
    middle = len(rows) // 2
    table = selected(ids, localities)
    parts = [piece for piece in (table[:middle], table[middle:]) if piece.num_rows]
    plan = make_plan(run, write(run, parts), shard, workers=2)
    assert read_plan(run) == plan
    assert plan.rows == len(rows)
    pieces = [read_rows(run, interval) for interval in plan.shards]
    assert all(0 < piece.num_rows <= shard for piece in pieces)
    found = pa.concat_tables(pieces)
    assert Counter(found["object_id"].to_pylist()) == Counter(ids)
    assert found["locality"].to_pylist() == sorted(localities)
    first = found.filter(pa.array(~found["duplicate"].to_numpy()))
    assert sorted(first["object_id"].to_pylist()) == sorted(set(ids))
    assert plan.duplicates == len(ids) - len(set(ids))


def test_of_two_rows_with_one_id_the_one_with_pixels_is_scored(tmp_path: Path) -> None:
    run = RunDirectory(str(tmp_path))
    plan = make_plan(run, write(run, [selected([7, 7], [-1, 3])]), 10, workers=1)
    found = read_rows(run, (0, plan.rows)).to_pydict()
    assert dict(zip(found["locality"], found["duplicate"], strict=True)) == {-1: True, 3: False}


def test_the_same_selection_in_other_parts_gives_the_same_plan(tmp_path: Path) -> None:
    table = selected(list(range(500)) * 2, [k % 7 for k in range(1000)], seed=3)
    plans, rows = [], []
    for name, cuts in (("a", [0, 1000]), ("b", [0, 17, 400, 1000])):
        run = RunDirectory(str(tmp_path / name))
        tables = [
            table[start:stop]
            for start, stop in zip(cuts[:-1], cuts[1:], strict=True)  # noqa: RUF007
        ]
        plans.append(make_plan(run, write(run, tables), 256, workers=1))
        rows.append(read_rows(run, (0, 1000)))
    assert plans[0] == plans[1]
    assert rows[0].equals(rows[1])


def test_the_plan_names_its_files_as_they_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(planning, "PLAN_FILE_ROWS", 40)
    run = RunDirectory(str(tmp_path))
    plan = make_plan(run, write(run, [selected(list(range(100)), [0] * 100)]), 50, workers=1)
    assert [file.rows for file in plan.files] == [40, 40, 20]
    for file in plan.files:
        data = run.store.read(file.name)
        assert (file.bytes, file.sha256) == (len(data), hashlib.sha256(data).hexdigest())


def change_rows(plan: dict[str, Any]) -> None:
    plan["rows"] += 1


def change_bounds(plan: dict[str, Any]) -> None:
    plan["bounds"].insert(1, plan["bounds"][-1])


def drop_a_file(plan: dict[str, Any]) -> None:
    del plan["files"][-1]


def swap_files(plan: dict[str, Any]) -> None:
    plan["files"].reverse()


def forget_files(plan: dict[str, Any]) -> None:
    del plan["files"]


@pytest.mark.parametrize(
    "change", [change_rows, change_bounds, drop_a_file, swap_files, forget_files]
)
def test_a_plan_that_contradicts_itself_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: Callable[[dict[str, Any]], None]
) -> None:
    monkeypatch.setattr(planning, "PLAN_FILE_ROWS", 40)
    run = RunDirectory(str(tmp_path))
    make_plan(run, write(run, [selected(list(range(100)), [0] * 100)]), 50, workers=1)
    content = run.read_json(PLAN_RECORD)
    assert content is not None
    change(content)
    run.write_json(PLAN_RECORD, content)
    with pytest.raises(CorruptRunError, match=PLAN_RECORD):
        read_plan(run)


@pytest.mark.parametrize("junk", [b"", b"{}", b"[]", b"null", b"\xff", b'{"rows": 1'])
def test_a_plan_that_is_junk_is_refused(tmp_path: Path, junk: bytes) -> None:
    run = RunDirectory(str(tmp_path))
    run.store.write(PLAN_RECORD, junk)
    with pytest.raises(CorruptRunError, match=PLAN_RECORD):
        read_plan(run)


@settings(
    max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.data())
def test_a_plan_made_in_pieces_is_that_made_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, data: st.DataObject
) -> None:
    """Whatever the range of localities, also where keys repeat within and across pieces."""
    rows = data.draw(st.integers(1, 400))
    span = data.draw(st.sampled_from([1, 3, 1 << 20, 1 << 62]))
    rng = np.random.default_rng(data.draw(st.integers(0, 99)))
    kind = data.draw(st.sampled_from([pa.int64(), pa.string()]))
    table = selected(rng.integers(0, rows, rows).tolist(), (rng.integers(-1, span, rows)).tolist())
    places = rng.integers(0, data.draw(st.sampled_from([4, 12 << 58])), rows)
    columns = {"healpix_29": places, "object_id": table["object_id"].cast(kind)}
    whole = pa.table({**{name: table[name] for name in table.column_names}, **columns})
    plans, found = [], []
    for k, (pieces, chunk) in enumerate([(1 << 18, 1 << 18), (16, 64)]):
        monkeypatch.setattr(external_sort, "PIECE_ROWS", pieces)
        monkeypatch.setattr(external_sort, "CHUNK_ROWS", chunk)
        monkeypatch.setattr(external_sort, "_SAMPLE_ROWS", 32)
        run = RunDirectory(str(tmp_path / f"{uuid.uuid4().hex}-{k}"))
        cut = rows // 3
        parts = [piece for piece in (whole[:cut], whole[cut:]) if piece.num_rows]
        plans.append(make_plan(run, write(run, parts), 64, workers=1))
        found.append(read_rows(run, (0, rows)))
    assert plans[0] == plans[1]
    assert found[0].equals(found[1])
    expected = whole.select(["locality", "healpix_29", "object_id"]).sort_by(
        [("locality", "ascending"), ("healpix_29", "ascending"), ("object_id", "ascending")]
    )
    assert found[0].select(expected.column_names).to_pydict() == expected.to_pydict()


def test_a_survey_that_selects_nothing_has_an_empty_plan(tmp_path: Path) -> None:
    plan = make_plan(RunDirectory(str(tmp_path)), [], 100, workers=2)
    assert (plan.rows, plan.shards) == (0, [])


def test_a_small_run_is_divided_so_that_every_worker_has_work(tmp_path: Path) -> None:
    run = RunDirectory(str(tmp_path))
    rows = 8 * planning.MIN_SHARD_ROWS
    plan = make_plan(run, write(run, [selected(list(range(rows)), [0] * rows)]), 8192, workers=2)
    assert len(plan.shards) == 8


@pytest.mark.parametrize("damage", ["truncated", "flipped"])
@pytest.mark.parametrize("folder", ["select", "plan"])
def test_a_damaged_file_of_the_run_is_named_with_its_remedy(
    tmp_path: Path, folder: str, damage: str
) -> None:
    """A bit that flips inside a page gives other rows or none, unless pages are checked."""
    run = RunDirectory(str(tmp_path / "run"))
    [part] = write(run, [selected(list(range(500)), [0] * 500)])
    plan = make_plan(run, [part], 100, workers=1)
    name = part if folder == "select" else plan.files[0].name
    remedy = "--retry-failed does its rows again" if folder == "select" else "--fresh begins anew"
    path = run.store.local_path(name)
    whole = path.read_bytes()
    damaged = [whole[: len(whole) // 2]]
    if damage == "flipped":
        places = range(50, len(whole) - 3000, 997)
        damaged = [bytes([*whole[:k], whole[k] ^ 16, *whole[k + 1 :]]) for k in places]
    for data in damaged:
        path.write_bytes(data)
        with pytest.raises(CorruptRunError, match=rf"^{name}: damaged: .*{remedy}"):
            make_plan(run, [part], 100, 1) if folder == "select" else read_rows(run, (0, 500))
    assert damaged


def test_a_record_of_the_plan_that_is_damaged_says_what_to_do(tmp_path: Path) -> None:
    run = RunDirectory(str(tmp_path))
    make_plan(run, [], 10, 1)
    run.store.write("plan/plan.json", run.store.read("plan/plan.json")[:-3])
    with pytest.raises(CorruptRunError, match=r"^plan/plan.json: .*--fresh begins anew"):
        read_plan(run)


def test_a_shard_holds_fewer_rows_where_they_are_large() -> None:
    small = InputSpec("image", ("g", "r", "i"), 48, 0.25)
    vis, nisp = InputSpec("vis", ("VIS",), 200, 0.1), InputSpec("nisp", ("Y", "J", "H"), 66, 0.3)
    assert most_rows(8192, [small]) == 8192
    assert most_rows(100, [vis, nisp]) == 100
    rows = most_rows(8192, [vis, nisp])
    assert 0.99 * SHARD_BYTES < rows * 4 * (200**2 + 3 * 66**2) <= SHARD_BYTES
    assert most_rows(8192, [InputSpec("image", ("g",), 20_000, 0.1)]) == 1
