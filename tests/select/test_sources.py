"""The catalogue: planned so that every row is in one part, read as it was written."""

from __future__ import annotations

import errno
import os
import pickle
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lenspipe.config import Columns, Sources
from lenspipe.errors import InputError
from lenspipe.select import sources as module
from lenspipe.select.files import CatalogueFile, find_files
from lenspipe.select.sources import (
    FileSlice,
    SourcePart,
    View,
    group_slices,
    groups_holding,
    list_parts,
    open_view,
    read_part,
    stored_share,
)
from lenspipe.storage.remote import OutageError


def _catalogue(start: int, rows: int, **more: Any) -> pa.Table:
    ids = np.arange(start, start + rows)
    columns = {"object_id": ids, "ra": ids % 360 * 1.0, "dec": ids % 90 * 1.0, "mag": ids * 0.1}
    return pa.table({**columns, **more})


def _write(path: Path, table: pa.Table, **options: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, path, **options)
    return path


def _all_ids(sources: Sources, base: str = ".") -> list[Any]:
    view = open_view(sources, base)
    tables = [read_part(part, view, ["object_id"]) for part in list_parts(sources, base)]
    return [value for table in tables for value in table.column(0).to_pylist()]


def _slices(files: list[list[int]]) -> list[FileSlice]:
    return [
        FileSlice(CatalogueFile(f"{k}", 10, ""), 0, tuple(groups), 10 * len(groups))
        for k, groups in enumerate(files)
    ]


def _groups_of(parts: tuple[SourcePart, ...]) -> list[tuple[str, int, int]]:
    return [
        (piece.file.path, piece.first_group + k, rows)
        for part in parts
        for piece in part.slices
        for k, rows in enumerate(piece.group_rows)
        if rows
    ]


@settings(max_examples=100, deadline=None)
@given(
    files=st.lists(st.lists(st.integers(0, 50), max_size=8), max_size=20),
    part_rows=st.integers(1, 120),
)
def test_every_row_group_is_in_exactly_one_part(files: list[list[int]], part_rows: int) -> None:
    parts = group_slices(_slices(files), part_rows)
    wanted = [(f"{f}", g, rows) for f, gs in enumerate(files) for g, rows in enumerate(gs) if rows]
    assert _groups_of(parts) == wanted
    assert [part.index for part in parts] == list(range(len(parts)))
    for part in parts:
        single = sum(1 for p in part.slices for rows in p.group_rows if rows) == 1
        assert 0 < part.rows <= part_rows or single


@settings(max_examples=50, deadline=None)
@given(
    files=st.lists(st.lists(st.integers(1, 9), min_size=1, max_size=8), min_size=1, max_size=6),
    part_rows=st.integers(1, 40),
)
def test_a_part_can_be_planned_anew(files: list[list[int]], part_rows: int) -> None:
    for part in group_slices(_slices(files), part_rows):
        pieces = group_slices(part.slices, 1)
        assert _groups_of(pieces) == _groups_of((part,))
        assert all(len(piece.slices) == 1 for piece in pieces)


def test_a_huge_file_and_many_small_ones_give_parts_of_bounded_size() -> None:
    huge = group_slices(_slices([[100_000] * 3000]), 500_000)
    assert len(huge) == 600
    assert all(len(part.slices) == 1 for part in huge)
    small = group_slices(_slices([[100]] * 30_000), 500_000)
    assert len(small) == 30
    assert max(len(part.slices) for part in small) == 1000
    assert len(pickle.dumps(small[0])) < 200_000


@settings(max_examples=100, deadline=None)
@given(sizes=st.lists(st.integers(1, 9), min_size=1, max_size=8), data=st.data())
def test_only_row_groups_that_hold_rows_are_read(sizes: list[int], data: st.DataObject) -> None:
    rows = np.array(
        sorted(data.draw(st.sets(st.integers(0, sum(sizes) - 1), min_size=1))), np.int64
    )
    groups, positions = groups_holding(sizes, rows)
    starts = np.cumsum([0, *sizes])
    laid = np.concatenate([np.arange(starts[g], starts[g + 1]) for g in groups])
    np.testing.assert_array_equal(laid[positions], rows)
    assert all(((rows >= starts[g]) & (rows < starts[g + 1])).any() for g in groups)


def test_one_file_with_row_groups(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PART_ROWS", 250)
    path = _write(tmp_path / "all.parquet", _catalogue(0, 1000), row_group_size=100)
    sources = Sources(path="all.parquet")
    parts = list_parts(sources, str(tmp_path))
    assert [part.rows for part in parts] == [200] * 5
    assert sum(part.size_bytes for part in parts) == pytest.approx(path.stat().st_size, rel=0.01)
    assert _all_ids(sources, str(tmp_path)) == list(range(1000))


def test_rows_asked_for_are_the_rows_read(tmp_path: Path) -> None:
    for k in range(4):
        _write(tmp_path / f"{k}.parquet", _catalogue(100 * k, 100), row_group_size=30)
    sources = Sources(path=str(tmp_path))
    (part,) = list_parts(sources, ".")
    view = open_view(sources, ".")
    rows = np.array([0, 29, 30, 99, 100, 350, 399])
    table = read_part(part, view, ["mag", "object_id"], rows)
    assert table.column_names == ["mag", "object_id"]
    assert table.column("object_id").to_pylist() == rows.tolist()
    assert read_part(part, view, ["mag"], np.zeros(0, np.int64)).num_rows == 0


def test_folders_hive_columns_and_what_is_not_data(tmp_path: Path) -> None:
    _write(tmp_path / "field=b/tile=2/p.parquet", _catalogue(20, 10))
    _write(tmp_path / "field=a%20x/tile=1/p.parquet", _catalogue(0, 20))
    _write(tmp_path / "field=b/tile=__HIVE_DEFAULT_PARTITION__/p.parquet", _catalogue(30, 5))
    for name in ("_metadata", "_common_metadata", ".hidden.parquet", "_temporary/x.parquet"):
        _write(tmp_path / name, _catalogue(900, 3))
    (tmp_path / "README.txt").write_text("not data")
    sources = Sources(path=str(tmp_path))
    assert sorted(_all_ids(sources)) == list(range(35))
    view = open_view(sources, ".")
    assert view.schema.field("tile").type == pa.int64()
    (part,) = list_parts(sources, ".")
    table = read_part(part, view, ["object_id", "field", "tile"])
    by_id = {row["object_id"]: (row["field"], row["tile"]) for row in table.to_pylist()}
    assert by_id[0] == ("a x", 1)
    assert by_id[25] == ("b", 2)
    assert by_id[34] == ("b", None)


def test_several_paths_are_read_once_each_in_a_fixed_order(tmp_path: Path) -> None:
    _write(tmp_path / "b.parquet", _catalogue(10, 10))
    _write(tmp_path / "a.parquet", _catalogue(0, 10))
    sources = Sources(path=("b.parquet", "a.parquet", "b.parquet"))
    assert _all_ids(sources, str(tmp_path)) == list(range(20))


def test_a_url_reads_as_a_local_path_does() -> None:
    fs = fsspec.filesystem("memory")
    for k in range(3):
        with fs.open(f"/sel/cat/{k}.parquet", "wb") as file:
            pq.write_table(_catalogue(10 * k, 10), file)
    try:
        assert _all_ids(Sources(path="memory://sel/cat")) == list(range(30))
        assert _all_ids(Sources(path="memory://sel/cat/1.parquet")) == list(range(10, 20))
        assert _all_ids(Sources(path="cat"), "memory://sel") == list(range(30))
    finally:
        fs.rm("/sel", recursive=True)


def _hats(folder: Path, kind: str, start: int) -> None:
    name = "dataset/Norder=0/Dir=0/Npix=4.parquet"
    _write(folder / name, _catalogue(start, 10))
    _write(folder / "dataset/_metadata", _catalogue(0, 1))
    _write(folder / "dataset/data_thumbnail.parquet", _catalogue(start, 2))
    (folder / "hats.properties").write_text(f"#HATS\nobs_collection=x\ndataproduct_type={kind}\n")


def test_a_hats_catalogue_is_its_partitions(tmp_path: Path) -> None:
    _hats(tmp_path, "object", 0)
    assert _all_ids(Sources(path=str(tmp_path))) == list(range(10))
    names = open_view(Sources(path=str(tmp_path)), ".").schema.names
    assert {"Norder", "Dir"} <= set(names)


def test_a_hats_collection_is_its_primary_catalogue_without_the_margin(tmp_path: Path) -> None:
    _hats(tmp_path / "main", "object", 0)
    _hats(tmp_path / "margin", "margin", 5)
    (tmp_path / "collection.properties").write_text("hats_primary_table_url=main\n")
    assert _all_ids(Sources(path=str(tmp_path))) == list(range(10))
    with pytest.raises(InputError, match="of type margin"):
        list_parts(Sources(path=str(tmp_path / "margin")), ".")


def test_names_of_the_survey_are_mapped(tmp_path: Path) -> None:
    table = pa.table(
        {
            "objID": [1, 2],
            "raMean": [3.0, 4.0],
            "ra": [0.0, 0.0],
            "decMean": [5.0, 6.0],
            "gp": [7, 8],
        }
    )
    _write(tmp_path / "a.parquet", table)
    columns = Columns(id="objID", ra="raMean", dec="decMean")
    sources = Sources(path=str(tmp_path), columns=columns, rename={"g_mag": "gp"})
    (part,) = list_parts(sources, ".")
    view = open_view(sources, ".")
    found = read_part(part, view, ["object_id", "ra", "dec", "g_mag", "objID", "raMean"])
    assert found.to_pylist()[1] == {
        "object_id": 2, "ra": 4.0, "dec": 6.0, "g_mag": 8, "objID": 2, "raMean": 4.0
    }  # fmt: skip


def test_what_was_not_measured_is_null(tmp_path: Path) -> None:
    table = pa.table(
        {
            "object_id": [-999, 1, 2, 3, 4],
            "ra": [-999.0, 1.0, 2.0, float("nan"), 4.0],
            "dec": [0.0] * 5,
            "mag": pa.array([-999, 20.5, float("nan"), float("inf"), None], pa.float32()),
            "err": pa.array([-99.99, 0.1, 0.2, 0.3, 0.4], pa.float32()),
            "n": pa.array([-999, 1, 2, 3, None], pa.int16()),
            "k": pa.array([0, 1, 2, 3, 4], pa.uint8()),
        }
    )
    _write(tmp_path / "a.parquet", table)
    sources = Sources(path=str(tmp_path), missing_values=(-999.0, -99.99))
    (part,) = list_parts(sources, ".")
    found = read_part(part, open_view(sources, "."), table.column_names).to_pydict()
    assert found["mag"] == [None, 20.5, None, None, None]
    assert found["err"][0] is None
    assert None not in found["err"][1:]
    assert found["n"] == [None, 1, 2, 3, None]
    assert found["k"] == [0, 1, 2, 3, 4]
    # An id is an id, and a position out of range is reported as it is.
    assert found["object_id"][0] == -999
    assert found["ra"] == [-999.0, 1.0, 2.0, None, 4.0]


@pytest.mark.parametrize(
    "kind",
    [pa.string(), pa.large_string(), pa.string_view(), pa.dictionary(pa.int32(), pa.string())],
    ids=str,
)
def test_ids_of_text_in_any_encoding(tmp_path: Path, kind: pa.DataType) -> None:
    ids = pa.array(["a/b", "c'd", "e\nf"]).cast(kind)
    tile = pa.array(["north", None, "a longer name than a view holds in itself"]).cast(kind)
    table = pa.table({"object_id": ids, "ra": [1.0] * 3, "dec": [2.0] * 3, "tile": tile})
    _write(tmp_path / "a.parquet", table)
    sources = Sources(path=str(tmp_path))
    assert _all_ids(sources) == ["a/b", "c'd", "e\nf"]
    view = open_view(sources, ".")
    [part] = list_parts(sources, ".")
    assert {view.schema.field(name).type for name in ("object_id", "tile")} == {pa.string()}
    # As stage `select` reads what survives the cuts: a part of the rows.
    found = read_part(part, view, ["object_id", "tile"], rows=np.array([0, 2]))
    assert found.schema == pa.schema([view.schema.field(name) for name in ("object_id", "tile")])
    assert found["object_id"].to_pylist() == ["a/b", "e\nf"]
    assert found["tile"].to_pylist() == [tile[0].as_py(), tile[2].as_py()]


def test_files_of_one_catalogue_may_hold_text_in_several_encodings(tmp_path: Path) -> None:
    for k, kind in enumerate((pa.string(), pa.string_view(), pa.large_string())):
        ids = pa.array([f"{k}-{row}" for row in range(3)]).cast(kind)
        table = pa.table({"object_id": ids, "ra": [1.0] * 3, "dec": [2.0] * 3})
        _write(tmp_path / f"{k}.parquet", table)
    sources = Sources(path=str(tmp_path))
    [part] = list_parts(sources, ".")
    found = read_part(part, open_view(sources, "."), ["object_id"], rows=np.array([1, 4, 8]))
    assert found["object_id"].to_pylist() == ["0-1", "1-1", "2-2"]


def test_large_unsigned_ids_keep_their_value(tmp_path: Path) -> None:
    ids = pa.array([2**64 - 1, 2**63], pa.uint64())
    _write(tmp_path / "a.parquet", pa.table({"object_id": ids, "ra": [1.0] * 2, "dec": [2.0] * 2}))
    assert _all_ids(Sources(path=str(tmp_path))) == [2**64 - 1, 2**63]


def test_a_file_with_another_type_is_named(tmp_path: Path) -> None:
    _write(tmp_path / "a.parquet", _catalogue(0, 5))
    table = _catalogue(5, 5)
    other = table.set_column(3, "mag", table.column("mag").cast(pa.string()))
    _write(tmp_path / "b.parquet", other)
    with pytest.raises(InputError) as caught:
        list_parts(Sources(path=str(tmp_path)), ".")
    assert "b.parquet: column mag: expected double as in" in str(caught.value)
    assert str(caught.value).endswith("found string")
    # A column that nobody needs may differ.
    assert len(list_parts(Sources(path=str(tmp_path)), ".", {"object_id", "ra", "dec"})) == 1


def test_a_file_without_a_column_is_named(tmp_path: Path) -> None:
    _write(tmp_path / "a.parquet", _catalogue(0, 5))
    _write(tmp_path / "b.parquet", _catalogue(0, 5).drop_columns(["mag"]))
    with pytest.raises(InputError, match=r"b\.parquet: column mag: .*no such column"):
        list_parts(Sources(path=str(tmp_path)), ".")


def _bad(tmp_path: Path, case: str) -> Sources:
    path = _write(tmp_path / "a.parquet", _catalogue(0, 5))
    if case == "empty":
        _write(path, _catalogue(0, 0))
    elif case == "folder":
        path.unlink()
    elif case == "footer":
        path.write_bytes(path.read_bytes()[:-3])
    elif case == "ra":
        _write(path, _catalogue(0, 2, name=["a", "b"]))
    odd: dict[str, dict[str, Any]] = {
        "nothing": {"path": str(tmp_path / "none")},
        "scheme": {"path": "nosuch://x/y.parquet"},
        "column": {"columns": Columns(id="objectid")},
        "rename": {"rename": {"g": "magg"}},
        "reserved": {"rename": {"ra": "mag"}},
        "id": {"columns": Columns(id="mag")},
        "ra": {"columns": Columns(ra="name")},
    }
    return Sources(**{"path": str(tmp_path), **odd.get(case, {})})


def _plan(sources: Sources) -> None:
    open_view(sources, ".")
    list_parts(sources, ".")


@pytest.mark.parametrize(
    ("case", "line"),
    [
        ("nothing", "sources.path: expected Parquet files"),
        ("empty", "sources.path: expected a catalogue with rows"),
        ("folder", "sources.path: expected Parquet files"),
        ("footer", "expected readable Parquet"),
        ("scheme", "sources.path: expected a path or a URL"),
        ("column", "sources.columns.id: expected a column of the catalogue (near: object_id"),
        ("rename", "sources.rename.g: expected a column of the catalogue (near: mag"),
        ("reserved", "sources.rename.ra: expected"),
        ("id", "sources.columns.id: expected a column of integers or text, found one of double"),
        ("ra", "sources.columns.ra: expected a column of floats"),
    ],
)
def test_bad_catalogues_are_refused_in_one_line(tmp_path: Path, case: str, line: str) -> None:
    sources = _bad(tmp_path, case)
    with pytest.raises(InputError) as caught:
        _plan(sources)
    assert line in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("fault", ["gone", "changed", "touched", "page"])
def test_files_that_change_after_planning_are_named(tmp_path: Path, fault: str) -> None:
    path = _write(tmp_path / "a.parquet", _catalogue(0, 5000), use_dictionary=False)
    _write(tmp_path / "b.parquet", _catalogue(5000, 5))  # so that the disk is there
    sources = Sources(path=str(path))
    view, (part,) = open_view(sources, "."), list_parts(sources, ".")
    if fault == "gone":
        path.unlink()
    elif fault == "changed":
        _write(path, _catalogue(0, 4000))
    elif fault == "touched":
        os.utime(path, ns=(1, 1))
    else:
        status = path.stat()
        content = bytearray(path.read_bytes())
        content[4:200] = b"\xff" * 196
        path.write_bytes(content)
        os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    with pytest.raises(InputError, match=r"a\.parquet"):
        read_part(part, view, ["object_id"])


def test_view_and_parts_survive_a_pickle(tmp_path: Path) -> None:
    _write(tmp_path / "a.parquet", _catalogue(0, 5))
    sources = Sources(path=str(tmp_path))
    view, parts = open_view(sources, "."), list_parts(sources, ".")
    again: tuple[View, tuple[SourcePart, ...]] = pickle.loads(  # noqa: S301  # as Ray sends them
        pickle.dumps((view, parts))
    )
    assert again == (view, parts)


def test_a_store_whose_library_raises_what_it_likes_is_an_input_error(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class NoCredentialsError(Exception):
        """As botocore has it: no OSError."""

    class Store:
        def isfile(self, path: str) -> bool:
            raise NoCredentialsError(f"Unable to locate credentials for {path}")

    monkeypatch.setattr("lenspipe.select.files.filesystem", lambda path: (Store(), path))
    with pytest.raises(InputError, match=r"sources\.path: .*s3://b/c: Unable to locate cred"):
        list_parts(Sources(path="s3://b/c"), ".")


def test_the_share_of_columns_is_that_of_the_footers(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    table = pa.table({"a": rng.random(10_000), "b": rng.random(10_000), "c": np.zeros(10_000)})
    pq.write_table(table, tmp_path / "x.parquet", compression="none", use_dictionary=False)
    files = find_files(str(tmp_path), ".")
    assert stored_share(files, ["a"]) == pytest.approx(1 / 3, rel=0.01)
    assert stored_share(files, ["a", "b", "c"]) == 1.0


def test_a_linked_folder_is_part_of_the_catalogue(tmp_path: Path) -> None:
    for folder in ("catalogue", "north"):
        (tmp_path / folder).mkdir()
        pq.write_table(pa.table({"x": [1]}), tmp_path / folder / f"{folder}.parquet")
    (tmp_path / "catalogue/north").symlink_to(tmp_path / "north")
    names = [file.path for file in find_files("catalogue", str(tmp_path))]
    expected = ["catalogue/catalogue.parquet", "catalogue/north/north.parquet"]
    assert names == [str(tmp_path / name) for name in expected]


def test_a_folder_that_is_away_is_no_smaller_catalogue(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "sub").mkdir()
    for path in ("a.parquet", "sub/b.parquet"):
        pq.write_table(pa.table({"x": [1]}), tmp_path / path)
    real = os.scandir

    def scandir(path: str) -> Any:
        if str(path).endswith("/sub"):
            raise OSError(errno.EIO, "Input/output error", path)
        return real(path)

    monkeypatch.setattr(os, "scandir", scandir)
    with pytest.raises(OutageError, match="sub: cannot be listed"):
        find_files(str(tmp_path), ".")


@pytest.mark.parametrize("kind", ["a broken link", "a FIFO"])
def test_what_is_no_file_is_named(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "x.parquet"
    if kind == "a FIFO":
        os.mkfifo(path)
    else:
        path.symlink_to(tmp_path / "nowhere")
    with pytest.raises(InputError, match=rf"sources\.path.*{kind}"):
        find_files(str(tmp_path), ".")
