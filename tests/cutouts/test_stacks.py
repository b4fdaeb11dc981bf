"""HDF5 and Zarr: how objects are found, how files are laid out, what a fault touches."""

from __future__ import annotations

import os
import time
import zlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import h5py
import numpy as np
import pyarrow as pa
import pytest
import zarr
from pydantic import ValidationError
from zarr.storage import ZipStore

from lenspipe import cutouts
from lenspipe.bench.sparse import CountedFiles
from lenspipe.contracts import CutoutBatch, InputSpec, Reason
from lenspipe.cutouts.base import Reader
from lenspipe.cutouts.chunks.chunked import Chunked
from lenspipe.cutouts.chunks.hdf5chunks import LeftToLibraryError, chunked
from lenspipe.cutouts.chunks.sparse import REMOTE_REQUEST_BYTES
from lenspipe.cutouts.chunks.zarrchunks import Shards
from lenspipe.cutouts.chunks.zarrchunks import chunked as chunked_zarr
from lenspipe.cutouts.faults import MissingPixelsError, UnreadableError
from lenspipe.cutouts.files.ranges import LocalFiles
from lenspipe.cutouts.geometry import as_slice
from lenspipe.cutouts.stacks import id_text, stated_bands
from lenspipe.errors import HopelessError, InputError

N, BANDS = 60, ("g", "r", "i")
SPEC = InputSpec("image", BANDS, 8, 0.25)
PIXELS = np.random.default_rng(5).normal(size=(N, 3, 8, 8)).astype(np.float32)


def write_hdf5(path: Path, pixels: Any = PIXELS, ids: Any = None, **layout: Any) -> None:
    path.parent.mkdir(exist_ok=True)
    with h5py.File(path, "w") as file:
        data = file.create_dataset("images", data=pixels, **layout)
        data.attrs["pixel_scale_arcsec"] = 0.25
        if ids is not None:
            file["ids"] = ids


def open_reader(reader: str, base: Path, **options: Any) -> Reader:
    block = {"reader": reader, "bands": list(BANDS), "path": "a.h5", "pixel_scale_arcsec": 0.25}
    model = cutouts.options_model(reader)
    return cutouts.open_reader(model.model_validate({**block, **options}), str(base))


def table(**columns: Any) -> pa.Table:
    count = len(next(iter(columns.values())))
    return pa.table({"object_id": np.arange(count), **columns})


def reasons(batch: CutoutBatch) -> dict[int, Reason]:
    return {failure.row: failure.reason for failure in batch.failures}


@pytest.mark.parametrize(
    "layout", [{}, {"chunks": (7, 3, 8, 8)}, {"chunks": (4, 1, 8, 8), "compression": "gzip"}]
)
def test_every_hdf5_layout_gives_the_same_pixels(tmp_path: Path, layout: dict[str, Any]) -> None:
    write_hdf5(tmp_path / "a.h5", **layout)
    rows = np.array([59, 3, 3, 17, 0, 58])
    reader = open_reader("hdf5", tmp_path, row="row")
    batch = reader.read(table(row=rows), [SPEC])
    np.testing.assert_array_equal(batch.images["image"], PIXELS[rows])
    swapped = InputSpec("image", ("i", "g"), 8, 0.25)
    batch = reader.read(table(row=rows), [swapped])
    np.testing.assert_array_equal(batch.images["image"], PIXELS[rows][:, [2, 0]])


LAYOUTS = [{}, {"chunks": (7, 3, 8, 8)}, {"chunks": (7, 3, 8, 8), "compression": "gzip"}]


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("name", ["images", "ids"])
def test_a_link_to_an_array_of_another_file_is_refused(
    tmp_path: Path, layout: dict[str, Any], name: str
) -> None:
    """The places of its bytes are of the other file, which no listing would hold."""
    write_hdf5(tmp_path / "other" / "real.h5", ids=np.arange(N), **layout)
    write_hdf5(tmp_path / "a.h5", -PIXELS, np.arange(N), **layout)
    with h5py.File(tmp_path / "a.h5", "a") as file:
        del file[name]
        file[name] = h5py.ExternalLink("other/real.h5", name)
    finder = {"ids": "ids"} if name == "ids" else {"row": "object_id"}
    with pytest.raises(InputError, match=rf"an array {name} in this file .*real\.h5"):
        open_reader("hdf5", tmp_path, **finder).describe()


@pytest.mark.parametrize("layout", LAYOUTS)
def test_links_within_a_file_are_followed(tmp_path: Path, layout: dict[str, Any]) -> None:
    write_hdf5(tmp_path / "real.h5", **layout)
    with h5py.File(tmp_path / "real.h5", "a") as file:
        file["group/soft"] = h5py.SoftLink("/images")
        file["group/self"] = h5py.ExternalLink("real.h5", "images")
    (tmp_path / "a.h5").symlink_to("real.h5")
    for name in ("group/soft", "group/self"):
        reader = open_reader("hdf5", tmp_path, row="object_id", dataset=name)
        batch = reader.read(table(row=[4, 9]), [SPEC])
        np.testing.assert_array_equal(batch.images["image"], PIXELS[:2])


@pytest.mark.parametrize("name", ["images", "ids"])
def test_virtual_arrays_are_refused(tmp_path: Path, name: str) -> None:
    write_hdf5(tmp_path / "real.h5", ids=np.arange(N))
    write_hdf5(tmp_path / "a.h5", ids=np.arange(N))
    with h5py.File(tmp_path / "a.h5", "a") as file:
        old = file[name]
        layout = h5py.VirtualLayout(old.shape, old.dtype)
        layout[...] = h5py.VirtualSource(str(tmp_path / "real.h5"), name, old.shape)
        del file[name]
        file.create_virtual_dataset(name, layout)
    finder = {"ids": "ids"} if name == "ids" else {"row": "object_id"}
    with pytest.raises(InputError, match=rf"an array {name} whose data .* found a virtual one"):
        open_reader("hdf5", tmp_path, **finder).describe()


@pytest.mark.parametrize(("version", "shards"), [(2, None), (3, None), (3, (20, 3, 8, 8))])
@pytest.mark.parametrize("per_band", [False, True])
def test_every_zarr_layout_gives_the_same_pixels(
    tmp_path: Path, version: Literal[2, 3], shards: tuple[int, ...] | None, per_band: bool
) -> None:
    root = zarr.open_group(str(tmp_path / "a.zarr"), mode="w", zarr_format=version)
    for index, band in enumerate(BANDS if per_band else ("images",)):
        pixels = PIXELS[:, index] if per_band else PIXELS
        drop = (lambda s: (s[0], *s[2:])) if per_band else (lambda s: s)
        array = root.create_array(
            band,
            shape=pixels.shape,
            dtype="f4",
            chunks=drop((5, 3, 8, 8)),
            shards=drop(shards) if shards else None,
        )
        array[...] = pixels
    options = {"arrays": {b: b for b in BANDS}} if per_band else {"array": "images"}
    reader = open_reader("zarr", tmp_path, path="a.zarr", row="row", **options)
    reader.check([SPEC])
    for rows in (
        np.array([59, 3, 3, 17, 0]),
        np.arange(N),
        np.array([], np.int64),
        np.r_[5, 20:40],
    ):
        batch = reader.read(table(row=rows), [SPEC])
        np.testing.assert_array_equal(batch.images["image"], PIXELS[rows])


def test_rows_count_through_several_files_and_beyond_them_is_nothing(tmp_path: Path) -> None:
    for part in range(3):
        write_hdf5(tmp_path / f"p{part}.h5", PIXELS[part * 20 : part * 20 + 20])
    reader = open_reader("hdf5", tmp_path, path="p*.h5", row="row")
    rows = pa.array([45, 0, 60, -1, None, 20])
    batch = reader.read(table(row=rows), [SPEC])
    np.testing.assert_array_equal(batch.images["image"], PIXELS[[45, 0, 20]])
    assert reasons(batch) == dict.fromkeys((2, 3, 4), Reason.NOT_FOUND)
    assert (reader.locality(table(row=rows)) >= 0).tolist() == [
        True,
        True,
        False,
        False,
        False,
        True,
    ]


def test_a_broken_file_takes_only_what_may_lie_in_it(tmp_path: Path) -> None:
    ids = np.arange(N)
    for part in range(3):
        where = slice(part * 20, part * 20 + 20)
        write_hdf5(tmp_path / f"p{part}.h5", PIXELS[where], ids[where])
    (tmp_path / "p1.h5").write_bytes(b"broken")
    by_row = open_reader("hdf5", tmp_path, path="p*.h5", row="object_id")
    batch = by_row.read(table(ra=np.zeros(N)), [SPEC])
    np.testing.assert_array_equal(batch.images["image"], PIXELS[:20])
    assert set(reasons(batch).values()) == {Reason.UNREADABLE}
    by_id = open_reader("hdf5", tmp_path, path="p*.h5", ids="ids")
    batch = by_id.read(table(ra=np.zeros(N)), [SPEC])
    np.testing.assert_array_equal(batch.images["image"], PIXELS[np.r_[:20, 40:60]])
    assert reasons(batch) == dict.fromkeys(range(20, 40), Reason.UNREADABLE)


def test_an_id_that_a_file_has_twice_is_a_failure(tmp_path: Path) -> None:
    names = [f"n{i}" for i in range(N)]
    names[7] = "n3"
    write_hdf5(tmp_path / "a.h5", ids=names)
    reader = open_reader("hdf5", tmp_path, ids="ids", id_column="name")
    batch = reader.read(table(name=["n3", "n4", "n7", "n8"]), [SPEC])
    np.testing.assert_array_equal(batch.images["image"], PIXELS[[4, 8]])
    assert reasons(batch) == {0: Reason.DUPLICATE_ID, 2: Reason.NOT_FOUND}
    assert reader.columns == {"name"}


@pytest.mark.parametrize("kind", ["f4", "f8", "c8", "bool"])
@pytest.mark.parametrize("reader", ["hdf5", "zarr"])
def test_ids_that_match_nothing_as_text_are_refused(tmp_path: Path, kind: str, reader: str) -> None:
    ids = np.arange(N).astype(kind)
    write_hdf5(tmp_path / "a.h5", ids=ids)
    root = zarr.open_group(str(tmp_path / "a.zarr"), mode="w")
    root.create_array("images", data=PIXELS)
    root.create_array("ids", data=ids)
    path = {"hdf5": "a.h5", "zarr": "a.zarr"}[reader]
    told = rf"cutouts\.ids: .*{path}: expected identifiers that are .* text, found {ids.dtype}"
    with pytest.raises(InputError, match=told):
        open_reader(reader, tmp_path, path=path, ids="ids").check([SPEC])


@pytest.mark.parametrize(
    "ids",
    [
        np.arange(N) - 3,
        np.arange(N, dtype=np.uint64) + 2**63,
        np.array([f"n{k}" for k in range(N)], "S4"),
        np.array([f"\u00f6{k}" for k in range(N)]),
    ],
    ids=lambda ids: str(ids.dtype),
)
@pytest.mark.parametrize("reader", ["hdf5", "zarr"])
def test_ids_of_every_kind_of_number_and_text(tmp_path: Path, ids: Any, reader: str) -> None:
    names = [k.decode() if isinstance(k, bytes) else str(k) for k in ids.tolist()]
    if reader == "hdf5":
        write_hdf5(tmp_path / "a.h5", ids=names if ids.dtype.kind == "U" else ids)
    else:
        root = zarr.open_group(str(tmp_path / "a.zarr"), mode="w", zarr_format=2)
        root.create_array("images", data=PIXELS)
        root.create_array("ids", data=ids)
    path = {"hdf5": "a.h5", "zarr": "a.zarr"}[reader]
    opened = open_reader(reader, tmp_path, path=path, ids="ids", id_column="name")
    opened.check([SPEC])
    batch = opened.read(table(name=names[7:9]), [SPEC])
    np.testing.assert_array_equal(batch.images["image"], PIXELS[7:9])


def test_a_pattern_that_fits_no_file_is_told(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"a readable file, found none that fits p\*\.h5"):
        open_reader("hdf5", tmp_path, path="p*.h5", row="row").describe()


def test_a_zip_file_is_no_store(tmp_path: Path) -> None:
    with ZipStore(tmp_path / "a.zip", mode="w") as store:
        zarr.open_group(store, mode="w").create_array("images", data=PIXELS)
    with pytest.raises(InputError, match=r"a readable file, found .*a\.zip: "):
        open_reader("zarr", tmp_path, path="a.zip", row="row").describe()


def test_a_damaged_chunk_takes_only_its_objects(tmp_path: Path) -> None:
    write_hdf5(tmp_path / "a.h5", chunks=(5, 3, 8, 8), compression="gzip", fletcher32=True)
    with h5py.File(tmp_path / "a.h5") as file:
        info = file["images"].id.get_chunk_info(4)
    data = bytearray((tmp_path / "a.h5").read_bytes())
    data[info.byte_offset + 50] ^= 255
    (tmp_path / "a.h5").write_bytes(bytes(data))
    reader = open_reader("hdf5", tmp_path, row="object_id")
    batch = reader.read(table(ra=np.zeros(N)), [SPEC])
    assert reasons(batch) == dict.fromkeys(range(20, 25), Reason.UNREADABLE)
    np.testing.assert_array_equal(batch.images["image"], PIXELS[np.r_[:20, 25:60]])


def test_a_wrong_band_order_is_refused_where_the_file_states_its_own(tmp_path: Path) -> None:
    write_hdf5(tmp_path / "a.h5")
    with h5py.File(tmp_path / "a.h5", "a") as file:
        file["images"].attrs["bands"] = "gri"
    open_reader("hdf5", tmp_path, row="object_id").check([SPEC])
    for bands in (["r", "g", "i"], ["g", "r"]):
        with pytest.raises(InputError, match=r"cutouts\.bands.*expected"):
            open_reader("hdf5", tmp_path, row="object_id", bands=bands).describe()
    root = zarr.open_group(str(tmp_path / "a.zarr"), mode="w")
    root.create_array("images", data=PIXELS).attrs["bands"] = ["i", "r", "g"]
    with pytest.raises(InputError, match=r"cutouts\.bands.*expected i, r, g, found g, r, i"):
        open_reader("zarr", tmp_path, path="a.zarr", row="object_id").describe()


@pytest.mark.parametrize("finder", [{}, {"row": "a", "ids": "b"}])
def test_exactly_one_way_to_find_an_object(tmp_path: Path, finder: dict[str, str]) -> None:
    with pytest.raises(ValidationError, match="exactly one of row, ids"):
        open_reader("hdf5", tmp_path, **finder)


@pytest.mark.parametrize(
    ("field", "block"),
    [
        ("zero_point.header", {"zero_point": {"header": "ZP"}}),
        ("zero_point.exptime_header", {"zero_point": {"exptime_header": "T"}}),
        ("mask.hdu", {"mask": {"hdu": 1}}),
        ("mask.file", {"mask": {"file": "m.fits"}}),
    ],
)
def test_what_only_fits_files_have_is_refused(
    tmp_path: Path, field: str, block: dict[str, Any]
) -> None:
    with pytest.raises(InputError, match=f"cutouts.{field}: expected no such key"):
        open_reader("hdf5", tmp_path, row="object_id", **block)


def test_wrong_names_and_columns_are_refused(tmp_path: Path) -> None:
    write_hdf5(tmp_path / "a.h5", ids=np.arange(3))
    with pytest.raises(InputError, match=r"cutouts\.dataset.*\(n, band, y, x\)"):
        open_reader("hdf5", tmp_path, row="object_id", dataset="stamps").describe()
    with pytest.raises(InputError, match=r"cutouts\.ids.*60 identifiers, found 3"):
        open_reader("hdf5", tmp_path, ids="ids").describe()
    with pytest.raises(InputError, match=r"cutouts\.row: expected a catalogue column"):
        open_reader("hdf5", tmp_path, row="row").locality(table(ra=[0.0]))
    with pytest.raises(InputError, match=r"cutouts\.row: expected whole numbers"):
        open_reader("hdf5", tmp_path, row="ra").locality(table(ra=[0.0]))
    with pytest.raises(InputError, match=r"cutouts\.path: expected a readable file"):
        open_reader("hdf5", tmp_path, path="none.h5", row="object_id").describe()
    zarr.open_group(str(tmp_path / "a.zarr"), mode="w").create_array("x", data=PIXELS)
    with pytest.raises(InputError, match=r"an array images \(n, band, y, x\), found x"):
        open_reader("zarr", tmp_path, path="a.zarr", row="object_id").describe()


@pytest.mark.parametrize(
    ("finder", "told"),
    [
        ({"row": "row"}, r"cutouts\.row: expected whole numbers in column row, found double"),
        ({"ids": "ids", "id_column": "names"}, r"cutouts\.id_column: expected text or numbers"),
    ],
)
def test_a_catalogue_whose_column_cannot_find_objects_ends_the_run(
    tmp_path: Path, finder: dict[str, str], told: str
) -> None:
    write_hdf5(tmp_path / "a.h5", ids=np.arange(N))
    reader = open_reader("hdf5", tmp_path, **finder)
    sources = table(row=[1.0, 2.0], names=[["a"], ["b"]])
    for call in (reader.locality, lambda rows: reader.read(rows, [SPEC])):
        with pytest.raises(HopelessError, match=told):
            call(sources)


def _sharded(folder: Path) -> CountedFiles:
    """20 shards of 3 objects; index 2 was never written."""
    group = zarr.create_group(folder / "a.zarr")
    array = group.create_array(
        "images", shape=PIXELS.shape, chunks=(1, 3, 8, 8), shards=(3, 3, 8, 8), dtype="float32"
    )
    array[3:] = PIXELS[3:]
    array[:2] = PIXELS[:2]
    return CountedFiles(LocalFiles(str(folder / "a.zarr")), 0.0)


def test_many_shards_of_a_store_are_read_in_two_rounds_of_requests(tmp_path: Path) -> None:
    files = _sharded(tmp_path)
    stored = zarr.open_group(tmp_path / "a.zarr", mode="r")["images"]
    array = chunked_zarr(stored, files, REMOTE_REQUEST_BYTES, sparse=False)
    assert array is not None
    assert isinstance(array.places, Shards)
    chunks = [(number, 0, 0, 0) for number in range(N)]
    found = [*map(_pixels_of(array), array.places.packed(chunks))]
    assert (files.rounds, files.requests) == (2, 40)
    assert isinstance(found[2], MissingPixelsError)
    for number in {*range(N)} - {2}:
        np.testing.assert_array_equal(found[number], PIXELS[number : number + 1])


def test_shards_are_read_in_more_rounds_where_they_are_large(tmp_path: Path) -> None:
    """At most ten indices of 52 bytes at once, and one block."""
    files = _sharded(tmp_path)
    stored = zarr.open_group(tmp_path / "a.zarr", mode="r")["images"]
    array = chunked_zarr(stored, files, REMOTE_REQUEST_BYTES, sparse=False)
    assert array is not None
    assert isinstance(array.places, Shards)
    places = replace(array.places, most_bytes=520.0)
    chunks = [(number, 0, 0, 0) for number in range(1, N, 3)]
    for number, data in zip(range(1, N, 3), places.packed(chunks), strict=True):
        np.testing.assert_array_equal(_pixels_of(array)(data), PIXELS[number : number + 1])
    assert files.rounds == 2 + 20


def _pixels_of(array: Chunked) -> Callable[[Any], Any]:
    return lambda data: data if isinstance(data, Exception) else array.unpacking(data)


def _packed(array: Chunked | None) -> list[Any]:
    assert array is not None
    return list(array.places.packed([(0, 0, 0, 0)]))


def test_a_chunk_whose_filters_were_skipped_is_read_all_the_same(tmp_path: Path) -> None:
    path = tmp_path / "a.h5"
    write_hdf5(path, chunks=(4, 3, 8, 8), compression="gzip")
    with h5py.File(path, "r+") as file:
        file["images"].id.write_direct_chunk((0, 0, 0, 0), PIXELS[:4].tobytes(), filter_mask=1)
    with h5py.File(path) as file:
        found = _packed(chunked(file["images"], str(path), False))
    assert isinstance(found[0], LeftToLibraryError)
    block = {"reader": "hdf5", "path": "a.h5", "bands": BANDS, "row": "object_id"}
    options = cutouts.options_model("hdf5").model_validate(block)
    table = pa.table({"object_id": np.arange(N), "ra": np.zeros(N), "dec": np.zeros(N)})
    batch = cutouts.open_reader(options, str(tmp_path)).read(table, [SPEC])
    np.testing.assert_array_equal(batch.images["image"], PIXELS)


def _many_chunks(path: Path, count: int, packed: bool) -> None:
    """A file of one object per chunk; all objects share their pixels."""
    layout: dict[str, Any] = {"compression": "gzip"} if packed else {}
    pixels = PIXELS[0].tobytes()
    stored = zlib.compress(pixels, 1) if packed else pixels
    with h5py.File(path, "w", libver="earliest") as file:
        data = file.create_dataset("images", (count, 3, 8, 8), "f4", chunks=(1, 3, 8, 8), **layout)
        for number in range(count):
            data.id.write_direct_chunk((number, 0, 0, 0), stored)


@pytest.mark.parametrize("packed", [True, False])
def test_a_chunk_is_found_without_a_walk_through_all_of_them(tmp_path: Path, packed: bool) -> None:
    """256 of 10^5 chunks, against the same from a hundredth of them: a walk takes 30 times more."""
    seconds = {}
    for count in (1_000, 100_000):
        name = f"{count}.h5"
        _many_chunks(tmp_path / name, count, packed)
        reader = open_reader("hdf5", tmp_path, row="row", path=name)
        rows = table(row=np.sort(np.random.default_rng(0).choice(count, 256, replace=False)))
        assert len(reader.read(rows, [SPEC])) == 256
        turns = []
        for _ in range(3):
            began = time.process_time()
            reader.read(rows, [SPEC])
            turns.append(time.process_time() - began)
        seconds[count] = min(turns)
    assert seconds[100_000] < 8 * seconds[1_000], seconds


@pytest.mark.parametrize("compression", ["gzip", "lzf", None])
def test_objects_whose_chunk_was_never_written_are_missing(
    tmp_path: Path, compression: str | None
) -> None:
    for name, written in (("none.h5", []), ("some.h5", [3, 4])):
        with h5py.File(tmp_path / name, "w") as file:
            layout: dict[str, Any] = {"chunks": (1, 2, 8, 8), "compression": compression}
            data = file.create_dataset("images", (N, 3, 8, 8), "f4", **layout)
            for number in written:
                data[number] = PIXELS[number]
            if written:
                data[7, :2] = PIXELS[7, :2]  # one of its two chunks
        batch = open_reader("hdf5", tmp_path, row="row", path=name).read(
            table(row=np.arange(10)), [SPEC]
        )
        assert batch.rows.tolist() == written
        assert len(batch.failures) == 10 - len(written)
        assert all("never written" in failure.detail for failure in batch.failures)


def test_chunks_of_a_file_that_is_written_meanwhile_are_not_taken(tmp_path: Path) -> None:
    path = tmp_path / "a.h5"
    write_hdf5(path, chunks=(4, 3, 8, 8), compression="gzip")
    with h5py.File(path) as file:
        array = chunked(file["images"], str(path), False)
        assert array is not None
        found = array.places.packed([(0, 0, 0, 0), (1, 0, 0, 0)])
        assert not isinstance(next(found), Exception)
        os.utime(path, (0, 0))
        with pytest.raises(UnreadableError, match="changed"):
            raise next(found)


def test_small_parts() -> None:
    assert [id_text(v) for v in (7, "7", b"7", np.int64(7))] == ["7"] * 4
    assert stated_bands("grizy") == ("g", "r", "i", "z", "y")
    assert stated_bands(b"VIS,Y") == ("VIS", "Y")
    assert stated_bands(["VIS", b"Y"]) == ("VIS", "Y")
    assert stated_bands(None) is None
    assert as_slice(np.array([3, 4, 5])) == slice(3, 6)
    assert isinstance(as_slice(np.array([3, 5, 4])), np.ndarray)


def test_rows_beyond_any_file_fail_alone(tmp_path: Path) -> None:
    write_hdf5(tmp_path / "a.h5", ids=np.arange(60))
    reader = open_reader("hdf5", tmp_path, row="row")
    rows = pa.array([3, 2**63 + 3, None, 2**64 - 1, 5], pa.uint64())
    sources = table(ra=np.zeros(5)).append_column("row", rows)
    batch = reader.read(sources, [SPEC])
    assert reasons(batch) == dict.fromkeys((1, 2, 3), Reason.NOT_FOUND)
