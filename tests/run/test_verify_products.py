from __future__ import annotations

import tracemalloc
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
import zarr

from lenspipe.catalogue.candidates import Rule, StampBatch, array_of, choose, write_candidates
from lenspipe.contracts import InputSpec
from lenspipe.run.verify import verify
from lenspipe.run.verify_products import check_candidates
from lenspipe.run_directory import FUNNEL, RUN, RunDirectory
from tests.catalogue.small_run import cap, commit_scores
from tests.catalogue.small_run import score_table as numbered_scores
from tests.run.ended_run import (
    KEPT,
    assert_told,
    edit,
    one,
    rewrite,
)


def other_scores(table: pa.Table) -> pa.Table:
    index = table.schema.get_field_index("score")
    values = pc.add(table["score"], pa.scalar(1.0, pa.float32()))
    return table.set_column(index, table.schema.field(index), values)


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


@pytest.mark.parametrize(
    ("damage", "place"),
    [
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
    ],
)
def test_each_damage_of_a_product_is_found_and_told_with_its_place(
    ended: RunDirectory, damage: Callable[[RunDirectory], None], place: str
) -> None:
    damage(ended)
    assert_told(ended, place)


@pytest.mark.parametrize(
    "name", ["notes.txt", "dataset/more.parquet", "dataset/data_thumbnail.parquet", "dataset/x/_x"]
)
def test_a_foreign_file_of_the_catalogue_is_named(ended: RunDirectory, name: str) -> None:
    ended.store.write(f"catalogue/{name}", b"x")
    assert verify(ended) == [f"catalogue/{name}: a file that the catalogue does not list"]


def test_a_partition_that_is_there_twice_is_named(ended: RunDirectory) -> None:
    """Readers that take all files of the dataset read its rows twice."""
    data = ended.store.read(one(ended, "catalogue/dataset", ".parquet"))
    for name in ("Norder=1/Dir=0/Npix=44.parquet", "Norder=0/Dir=10000/Npix=0.parquet"):
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


def test_products_of_a_run_that_goes_on_are_not_looked_at(ended: RunDirectory) -> None:
    """A resumed run may have taken shards back; what it published before is then out of date."""
    edit(ended, RUN, lambda told: told.update(state="running"))
    wrong_funnel(ended)
    lose_catalogue(ended)
    assert verify(ended) == []


def test_memory_does_not_grow_with_the_stamps(tmp_path: Path) -> None:
    run = RunDirectory(str(tmp_path))
    parts = commit_scores(run, [numbered_scores(*cap(128, 40.0, 3.0, 1.0))])
    run.write_json(FUNNEL, {"candidates": 128})
    rule = Rule(top=128)
    chosen = choose(run, parts, rule)
    assert chosen is not None
    large = InputSpec("image", ("g",), 512, 0.25)  # 1 MiB each
    image = np.ones((1, *large.shape), np.float32)
    batches = (
        StampBatch([each], {"image": image}) for each in chosen.table["object_id"].to_pylist()
    )
    write_candidates(run, chosen, (large,), batches, {"rule": rule.model_dump(mode="json")})
    tracemalloc.start()
    try:
        assert list(check_candidates(run, parts)) == []
        assert tracemalloc.get_traced_memory()[1] < 64 << 20
    finally:
        tracemalloc.stop()
