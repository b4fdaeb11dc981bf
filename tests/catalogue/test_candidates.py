from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from lenspipe.catalogue.candidates import (
    Chosen,
    Rule,
    StampBatch,
    array_of,
    choose,
    open_candidates,
    write_candidates,
)
from lenspipe.contracts import InputSpec
from lenspipe.errors import CorruptRunError
from lenspipe.models.ensemble_file import describe_ensemble
from lenspipe.run_directory import RunDirectory
from tests.catalogue.small_run import cap, commit_scores, score_table
from tests.toy_models import make_member

WIDE = InputSpec("vis", ("g", "r", "i"), 12, 0.25, 25.0)
NARROW = InputSpec("nisp", ("y",), 5, 0.6)


def scored(tmp_path: Path | str, id_type: pa.DataType | None = None) -> tuple[RunDirectory, Any]:
    run = RunDirectory(str(tmp_path))
    tables = [
        score_table(
            *cap(200, 40.0, 3.0, 1.0, seed), first_id=200 * seed, id_type=id_type, seed=seed
        )
        for seed in range(3)
    ]
    return run, commit_scores(run, tables)


def read(group: zarr.Group, name: str) -> np.ndarray:
    return np.asarray(array_of(group, name)[:])


def pixels_of(ids: list[Any], spec: InputSpec) -> np.ndarray:
    """Pixels that say whose they are."""
    numbers = np.array([int(str(i).lstrip("J")) for i in ids], np.float32)
    return np.broadcast_to(numbers[:, None, None, None], (len(ids), *spec.shape)).copy()


def stamps(table: pa.Table, step: int, with_maps: bool, seed: int = 0) -> Iterator[StampBatch]:
    ids = np.array(table["object_id"].to_pylist(), object)
    np.random.default_rng(seed).shuffle(ids)
    for start in range(0, len(ids), step):
        some = ids[start : start + step].tolist()
        images = {spec.name: pixels_of(some, spec) for spec in (WIDE, NARROW)}
        yield StampBatch(some, images, images["vis"][:, 0] + 0.5 if with_maps else None)


def expected_ranking(run: RunDirectory) -> list[tuple[float, Any]]:
    table = run.read_folder("scores", ("score",), ["object_id", "score"])
    assert table is not None
    pairs = zip(table["score"].to_pylist(), table["object_id"].to_pylist(), strict=True)
    return sorted(pairs, key=lambda pair: (-pair[0], pair[1]))


@given(st.integers(1, 700), st.integers(1, 700))
@settings(max_examples=8, deadline=None)
def test_the_best_are_chosen_in_order(
    tmp_path_factory: pytest.TempPathFactory, top: int, keep: int
) -> None:
    run, parts = scored(tmp_path_factory.mktemp("run"))
    chosen = choose(run, parts, Rule(top=top, keep=keep))
    assert chosen is not None
    assert chosen.total == min(top, 600)
    best = expected_ranking(run)[: min(top, keep)]
    assert chosen.table["object_id"].to_pylist() == [key for _, key in best]


def test_a_threshold_is_exceeded_and_equal_scores_rank_by_id(tmp_path: Path) -> None:
    run = RunDirectory(str(tmp_path))
    table = score_table(*cap(6, 40.0, 3.0, 1.0))
    values = pa.array([1.0, 2.0, 2.0, np.nan, 0.5, 2.0], pa.float32())
    at = table.schema.get_field_index("score")
    table = table.set_column(at, table.schema.field("score"), values)
    table = table.take([5, 4, 3, 2, 1, 0])
    chosen = choose(run, commit_scores(run, [table]), Rule(score_above=1.0))
    assert chosen is not None
    assert chosen.table["object_id"].to_pylist() == [1, 2, 5]
    assert chosen.total == 3


def test_where_nothing_was_scored_nothing_is_chosen(tmp_path: Path) -> None:
    assert choose(RunDirectory(str(tmp_path)), [], Rule(top=3)) is None


@pytest.mark.parametrize("rule", [{}, {"top": 1, "score_above": 0.0}, {"top": 0}])
def test_a_rule_is_one_rule(rule: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        Rule(**rule)


@pytest.mark.parametrize("id_type", [pa.int64(), pa.string()], ids=str)
@pytest.mark.parametrize("place", ["local", "memory"])
def test_rows_of_all_arrays_belong_together(
    tmp_path: Path, id_type: pa.DataType, place: str
) -> None:
    url = str(tmp_path) if place == "local" else f"memory://candidates-{id_type}/run"
    run, parts = scored(url, id_type)
    chosen = choose(run, parts, Rule(top=37))
    assert chosen is not None
    written = write_candidates(run, chosen, (WIDE, NARROW), stamps(chosen.table, 10, True), {})
    group = open_candidates(run)
    assert group is not None
    ids = read(group, "object_id")[:].tolist()
    assert written == 37
    assert ids == chosen.table["object_id"].to_pylist()
    np.testing.assert_array_equal(read(group, "images/vis")[:], pixels_of(ids, WIDE))
    np.testing.assert_array_equal(read(group, "images/nisp")[:], pixels_of(ids, NARROW))
    np.testing.assert_array_equal(read(group, "explanation")[:], pixels_of(ids, WIDE)[:, 0] + 0.5)
    np.testing.assert_array_equal(read(group, "score")[:], chosen.table["score"].to_numpy())
    assert read(group, "has_stamp")[:].all()
    run.store.delete_folder("")


def test_what_a_reader_must_know_is_in_the_attributes(tmp_path: Path) -> None:
    run, parts = scored(tmp_path)
    chosen = choose(run, parts, Rule(top=2))
    assert chosen is not None
    write_candidates(run, chosen, (WIDE, NARROW), stamps(chosen.table, 9, False), {"name": "toy"})
    group = open_candidates(run)
    assert group is not None
    assert group.metadata.zarr_format == 3
    sealed = {"arrays_sha256", "content_sha256"}
    assert group.attrs.keys() == {"candidates", "kept_columns", "name", *sealed}
    assert group.attrs["kept_columns"] == []
    assert (group.attrs["candidates"], group.attrs["name"]) == (2, "toy")
    assert dict(array_of(group, "images/vis").attrs) == {
        "bands": ["g", "r", "i"],
        "pixel_scale_arcsec": 0.25,
        "zero_point_mag": 25.0,
    }
    assert array_of(group, "ra").attrs["unit"] == "deg"
    assert "explanation" not in group


def test_a_candidate_without_pixels_is_nan_and_said_to_have_none(tmp_path: Path) -> None:
    run, parts = scored(tmp_path)
    chosen = choose(run, parts, Rule(top=8))
    assert chosen is not None
    written = write_candidates(
        run, chosen, (WIDE, NARROW), stamps(chosen.table.slice(0, 5), 2, False), {}
    )
    group = open_candidates(run)
    assert group is not None
    assert written == 5
    assert read(group, "has_stamp")[:].tolist() == [True] * 5 + [False] * 3
    assert np.isnan(read(group, "images/vis")[5:]).all()
    assert np.isfinite(read(group, "images/vis")[:5]).all()


@pytest.mark.parametrize("ids", [[99999], ["first", "first"]])
def test_foreign_or_repeated_stamps_are_refused_and_the_old_group_stays(
    tmp_path: Path, ids: list[Any]
) -> None:
    run, parts = scored(tmp_path)
    chosen = choose(run, parts, Rule(top=4))
    assert chosen is not None
    write_candidates(run, chosen, (NARROW,), [], {"name": "old"})
    real = [chosen.table["object_id"][0].as_py() if i == "first" else i for i in ids]
    batch = StampBatch(real, {"nisp": np.zeros((len(real), *NARROW.shape), np.float32)})
    with pytest.raises(CorruptRunError, match="stamps"):
        write_candidates(run, chosen, (NARROW,), [batch], {"name": "new"})
    group = open_candidates(run)
    assert group is not None
    assert group.attrs["name"] == "old"
    assert not list(tmp_path.glob("candidates.zarr.tmp-*"))


@pytest.mark.parametrize("name", [".", "..", "zarr.json", "model/x:0", "x" * 200])
def test_any_name_of_an_input_gives_one_array(tmp_path: Path, name: str) -> None:
    make_member(tmp_path / "a.onnx", input_name=name)
    run, parts = scored(tmp_path / "run")
    chosen = choose(run, parts, Rule(top=2))
    assert chosen is not None
    inputs = describe_ensemble(str(tmp_path / "a.onnx")).inputs
    write_candidates(run, chosen, inputs, [], {})
    group = open_candidates(run)
    assert group is not None
    images = group["images"]
    assert isinstance(images, zarr.Group)
    assert list(images.array_keys()) == [inputs[0].name]
    assert array_of(group, f"images/{inputs[0].name}").shape == (2, *inputs[0].shape)


def test_no_candidate_is_an_empty_group(tmp_path: Path) -> None:
    run, parts = scored(tmp_path)
    chosen = choose(run, parts, Rule(score_above=1e6))
    assert chosen is not None
    assert write_candidates(run, Chosen(0, chosen.table), (WIDE,), [], {}) == 0
    group = open_candidates(run)
    assert group is not None
    assert array_of(group, "images/vis").shape == (0, *WIDE.shape)
