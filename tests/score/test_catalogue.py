"""The catalogue of `lenspipe score`: identifiers stay what stands in the file."""

from __future__ import annotations

import gzip
import os
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lenspipe.cutouts.formats import hdf5, stamps
from lenspipe.errors import InputError
from lenspipe.score.catalogue import read_catalogue
from lenspipe.score.listing import name_columns


def _csv(folder: Path, ids: list[str]) -> Path:
    path = folder / "c.csv"
    path.write_text("name,number\n" + "".join(f"{name},{k:03d}\n" for k, name in enumerate(ids)))
    return path


@pytest.mark.parametrize(
    ("ids", "kind"),
    [
        (["007", "7", "08"], pa.string()),
        (["1", "+2"], pa.string()),
        (["1", "2", "12345678901234567890"], pa.string()),  # beyond 64 bits with a sign
        (["2020-01-01", "2020-01-02"], pa.string()),
        (["true", "false"], pa.string()),
        (["a", "7"], pa.string()),
        (["1234.060", "1235.1"], pa.string()),
        (["1.5", "-2"], pa.string()),  # a file's name would have -2.0
        (["1e3", "2.5"], pa.string()),
        (["7", "-8", "0"], pa.int64()),
    ],
)
def test_ids_stay_what_stands_in_the_file(tmp_path: Path, ids: list[str], kind: Any) -> None:
    table = read_catalogue(_csv(tmp_path, ids), {"name"})
    assert table["name"].type == kind
    assert [str(value) for value in table["name"].to_pylist()] == ids
    assert table["number"].to_pylist() == list(range(len(ids)))  # names nothing


def test_measurements_stay_numbers_and_missing_ids_missing(tmp_path: Path) -> None:
    path = _csv(tmp_path, ["1.5", "", "-2.25"])
    assert read_catalogue(path, {"name"})["name"].to_pylist() == [1.5, None, -2.25]
    assert read_catalogue(path, {"name"}, "name")["name"].to_pylist() == ["1.5", None, "-2.25"]
    assert read_catalogue(_csv(tmp_path, ["1.50"]))["name"].to_pylist() == [1.5]  # names nothing
    for ids in (["1", ""], ["007", ""]):
        assert read_catalogue(_csv(tmp_path, ids), {"name"})["name"].null_count == 1
    assert read_catalogue(_csv(tmp_path, []), {"name"}).num_rows == 0


def test_which_columns_name_something() -> None:
    by_name = stamps.Options(
        reader="stamps", path="{field}/{object_id}_{band}.fits", bands={"g": "g"}
    )
    assert name_columns(by_name, "id") == {"id", "field"}
    numbered = by_name.model_copy(update={"path": "{object_id:06d}_{band}.fits"})
    assert name_columns(numbered, "id") == frozenset()
    measured = by_name.model_copy(update={"path": "{object_id}_{phase:.2f}_{band}.fits"})
    assert name_columns(measured, "id") == {"id"}
    padded = by_name.model_copy(update={"path": "{object_id:_>9}_{band}.fits"})
    assert name_columns(padded, "id") == {"id"}
    by_id = hdf5.Options(reader="hdf5", path="a.h5", bands=("g",), ids="names", id_column="label")
    assert name_columns(by_id, "id") == {"id", "label"}
    by_row = hdf5.Options(reader="hdf5", path="a.h5", bands=("g",), row="row")
    assert name_columns(by_row, "id") == {"id"}


@pytest.mark.timeout(20)
@pytest.mark.parametrize("name", ["c.csv", "c.parquet"])
def test_a_special_file_is_not_waited_for(tmp_path: Path, name: str) -> None:
    os.mkfifo(tmp_path / name)
    with pytest.raises(InputError, match="a regular file, found a FIFO"):
        read_catalogue(tmp_path / name)


def test_a_parquet_file_keeps_its_types(tmp_path: Path) -> None:
    pq.write_table(pa.table({"name": pa.array([7], pa.int32())}), tmp_path / "c.parquet")
    assert read_catalogue(tmp_path / "c.parquet", {"name"})["name"].type == pa.int32()


def test_a_column_that_stands_twice_is_refused(tmp_path: Path) -> None:
    (tmp_path / "c.csv").write_text("name,name,a\n1,2,3\n")
    with pytest.raises(InputError, match="each column once, found name twice"):
        read_catalogue(tmp_path / "c.csv", {"name"})


def _folder(folder: Path) -> Path:
    found = folder / "many.parquet"
    (found / "field=007").mkdir(parents=True)
    pq.write_table(pa.table({"name": ["b"]}), found / "field=007" / "b.parquet")
    pq.write_table(pa.table({"name": ["a"], "field": [3]}), found / "a.parquet")
    return found


def test_a_folder_is_read_whole(tmp_path: Path) -> None:
    folder = _folder(tmp_path)
    assert read_catalogue(folder).to_pylist() == [
        {"name": "a", "field": 3},
        {"name": "b", "field": 7},
    ]
    (folder / "a.parquet").unlink()
    assert read_catalogue(folder, {"field"})["field"].to_pylist() == ["007"]


@pytest.mark.timeout(20)
@pytest.mark.parametrize(
    ("make", "told"),
    [
        (lambda path: path.symlink_to("gone"), r"files that are there, found a broken link .*z\."),
        (os.mkfifo, r"regular files, found .*z\.parquet, a FIFO"),
        (lambda path: path.write_bytes(b"PAR1"), r"z\.parquet: expected readable Parquet"),
        (
            lambda path: path.with_name("q\udcff.parquet").touch(),
            r"a name in UTF-8, found .*q\\udcff\.parquet$",
        ),
    ],
)
def test_nothing_of_a_folder_is_passed_over(tmp_path: Path, make: Any, told: str) -> None:
    folder = _folder(tmp_path)
    make(folder / "z.parquet")
    with pytest.raises(InputError, match=told) as refused:
        read_catalogue(folder)
    assert refused.value.field.startswith(f"catalogue {folder}")


@pytest.mark.parametrize("packed", [False, True])
def test_urls(tmp_path: Path, packed: bool) -> None:
    path = _csv(tmp_path, ["007", "7.10"])
    if packed:
        (tmp_path / "c.csv.gz").write_bytes(gzip.compress(path.read_bytes()))
        path = tmp_path / "c.csv.gz"
    found = read_catalogue(f"file://{path}", {"name"}, "name")
    assert found.equals(read_catalogue(path, {"name"}, "name"))
    assert found["name"].to_pylist() == ["007", "7.10"]
    folder = _folder(tmp_path)
    assert read_catalogue(f"file://{folder}").equals(read_catalogue(folder))
    with pytest.raises(InputError, match="catalogue file:///none"):
        read_catalogue("file:///none.parquet")


def test_text_that_is_held_as_views_can_be_put_in_order(tmp_path: Path) -> None:
    table = pa.table({"name": pa.array(["a", None, "c"], pa.string_view()), "x": [1.0, 2.0, 3.0]})
    pq.write_table(table, tmp_path / "c.parquet")
    found = read_catalogue(tmp_path / "c.parquet", {"name"})
    assert found.take(pa.array([2, 0]))["name"].to_pylist() == ["c", "a"]
