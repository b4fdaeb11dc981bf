"""Damaged pixels: every row equals the undisturbed one, or is a failure with its reason.

A change that no checksum covers is the limit: where a format has none, a flipped bit of a pixel
cannot be told from a pixel, and these tests hold that nothing but such rows differs.
"""

from __future__ import annotations

import os
import resource
import stat
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pyarrow as pa
import pytest
import zarr
from astropy.io import fits
from zarr.codecs import Crc32cCodec, ZstdCodec

from lenspipe import cutouts
from lenspipe.contracts import CutoutBatch, InputSpec, Reason
from lenspipe.cutouts.base import Reader
from lenspipe.errors import InputError

pytestmark = pytest.mark.chaos

SEED = int(os.environ.get("LENSPIPE_SEED", "20"))
N, SIDE, BANDS = 12, 12, ("g", "r", "i")
SPEC = InputSpec("image", BANDS, SIDE, 0.25)
_DAMAGE = {Reason.UNREADABLE, Reason.BAD_METADATA, Reason.NOT_FOUND}
_OF_PIXELS = {Reason.BAD_PIXELS, Reason.CONSTANT_IMAGE, Reason.MISSING_BAND}


@dataclass(frozen=True)
class Kind:
    """A way to store the stamps. checked: whether a checksum covers every byte that matters."""

    write: Callable[[Path], tuple[dict[str, Any], pa.Table]]
    checked: bool = False


def stamps() -> np.ndarray[Any, np.dtype[np.float32]]:
    rng = np.random.default_rng(3)
    return rng.normal(5.0, 1.0, (N, len(BANDS), SIDE, SIDE)).astype(np.float32)


def _table(ra: Any = None) -> pa.Table:
    rows = np.arange(N)
    return pa.table({"object_id": rows, "ra": rows * 0.01 if ra is None else ra, "dec": rows * 0.0})


def _header() -> fits.Header:
    step = 0.25 / 3600
    cards = {"CTYPE1": "RA---TAN", "CTYPE2": "DEC--TAN", "CRVAL1": 10.0, "CRVAL2": 0.0}
    middle = SIDE // 2 + 1
    return fits.Header(
        {**cards, "CRPIX1": middle, "CRPIX2": middle, "CDELT1": -step, "CDELT2": step}
    )


def _coadd(folder: Path, compressed: bool = False) -> tuple[dict[str, Any], pa.Table]:
    for index, band in enumerate(BANDS):
        image = np.hstack(list(stamps()[:, index]))
        path = folder / f"t_{band}.fits"
        if compressed:
            unit = fits.CompImageHDU(
                image, _header(), compression_type="GZIP_2", quantize_level=0.0
            )
            fits.HDUList([fits.PrimaryHDU(), unit]).writeto(f"{path}.fz", checksum=True)
        else:
            fits.PrimaryHDU(image, _header()).writeto(path, checksum=True)
    names = {band: f"{{tile}}_{band}.fits" for band in BANDS}
    ra = 10.0 - np.degrees(np.arctan(np.radians(np.arange(N) * SIDE * 0.25 / 3600)))
    return {"reader": "coadd", "tiles": "t_*", "bands": names}, _table(ra)


def _stamps(folder: Path) -> tuple[dict[str, Any], pa.Table]:
    for number, stamp in enumerate(stamps()):
        for band, pixels in zip(BANDS, stamp, strict=True):
            unit = fits.PrimaryHDU(pixels, _header())
            unit.writeto(folder / f"{number}_{band}.fits", checksum=True)
    return {
        "reader": "stamps",
        "path": "{object_id}_{band}.fits",
        "bands": {band: band for band in BANDS},
    }, _table()


def _hdf5(folder: Path, **layout: Any) -> tuple[dict[str, Any], pa.Table]:
    with h5py.File(folder / "a.h5", "w") as file:
        file.create_dataset("images", data=stamps(), **layout)
    options = {"reader": "hdf5", "path": "a.h5", "bands": BANDS, "row": "object_id"}
    return {**options, "pixel_scale_arcsec": 0.25}, _table()


def _zarr(folder: Path, **layout: Any) -> tuple[dict[str, Any], pa.Table]:
    layout = {"chunks": (3, len(BANDS), SIDE, SIDE), **layout}
    group = zarr.open_group(folder / "a.zarr", mode="w", zarr_format=3)
    group.create_array("images", shape=stamps().shape, dtype="f4", **layout)[...] = stamps()
    options = {"reader": "zarr", "path": "a.zarr", "bands": BANDS, "row": "object_id"}
    return {**options, "pixel_scale_arcsec": 0.25}, _table()


_CHUNK = {"chunks": (3, len(BANDS), SIDE, SIDE)}
_ONE = (1, len(BANDS), SIDE, SIDE)
KINDS: dict[str, Kind] = {
    "coadd": Kind(_coadd, checked=True),
    "coadd_fz": Kind(lambda folder: _coadd(folder, compressed=True), checked=True),
    "stamps": Kind(_stamps, checked=True),
    "hdf5": Kind(_hdf5),
    "hdf5_gzip": Kind(lambda folder: _hdf5(folder, compression="gzip", shuffle=True, **_CHUNK)),
    "hdf5_checked": Kind(lambda folder: _hdf5(folder, fletcher32=True, **_CHUNK)),
    "zarr": Kind(lambda folder: _zarr(folder, compressors=None)),
    "zarr_checked": Kind(lambda folder: _zarr(folder, compressors=[ZstdCodec(), Crc32cCodec()])),
    "zarr_sharded": Kind(
        lambda folder: _zarr(
            folder, chunks=_ONE, shards=(6, *_ONE[1:]), compressors=[ZstdCodec(), Crc32cCodec()]
        )
    ),
}
# Checksums of these formats cover pixels, not the metadata that says where they are.
CHECKED_PIXELS = {"hdf5_checked", "zarr_checked", "zarr_sharded"}


def open_kind(folder: Path, options: dict[str, Any]) -> Reader:
    model = cutouts.options_model(options["reader"])
    return cutouts.open_reader(model.model_validate(options), str(folder))


def files_of(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


def read(folder: Path, options: dict[str, Any], table: pa.Table) -> CutoutBatch | None:
    """The batch, None where the whole store is refused in one line."""
    try:
        return open_kind(folder, options).read(table, [SPEC])
    except InputError as error:
        assert "\n" not in str(error)
        return None


def differing(batch: CutoutBatch | None, sound: CutoutBatch) -> list[int]:
    """Rows that were given with other pixels than the undisturbed ones; failures are checked to
    have a reason and a detail."""
    if batch is None:
        return []
    assert batch.requested == N
    assert all(f.reason in _DAMAGE | _OF_PIXELS and f.detail for f in batch.failures)
    expected = sound.images["image"][batch.rows]
    same = (batch.images["image"] == expected).all(axis=(1, 2, 3))
    return batch.rows[~same].tolist()  # type: ignore[no-any-return]  # a list of numbers


@pytest.fixture(params=sorted(KINDS))
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def _written(folder: Path, kind: str) -> tuple[dict[str, Any], pa.Table, CutoutBatch]:
    options, table = KINDS[kind].write(folder)
    sound = read(folder, options, table)
    assert sound is not None
    assert len(sound) == N, sound.failures
    np.testing.assert_array_equal(sound.images["image"], stamps())
    return options, table, sound


def test_a_truncated_file_gives_no_wrong_pixel(tmp_path: Path, kind: str) -> None:
    options, table, sound = _written(tmp_path, kind)
    rng = np.random.default_rng(SEED)
    told = False
    for path in rng.permutation(np.array(files_of(tmp_path)))[:6]:
        data = path.read_bytes()
        for length in {0, 1, len(data) - 1, *rng.integers(0, len(data), 6).tolist()}:
            path.write_bytes(data[:length])
            batch = read(tmp_path, options, table)
            assert differing(batch, sound) == [], (SEED, path.name, length)
            told |= batch is None or bool(batch.failures)
        path.write_bytes(data)
    assert told
    assert differing(read(tmp_path, options, table), sound) == []


def test_a_flipped_bit_is_told_where_a_checksum_covers_it(tmp_path: Path, kind: str) -> None:
    options, table, sound = _written(tmp_path, kind)
    rng = np.random.default_rng(SEED)
    paths = files_of(tmp_path)
    for _ in range(40):
        path = paths[rng.integers(len(paths))]
        data = path.read_bytes()
        where, bit = int(rng.integers(len(data))), int(rng.integers(8))
        flipped = bytearray(data)
        flipped[where] ^= 1 << bit
        path.write_bytes(flipped)
        found = differing(read(tmp_path, options, table), sound)
        pixels_only = kind in CHECKED_PIXELS and ("/c/" in str(path) or path.suffix == ".h5")
        if KINDS[kind].checked or pixels_only:
            assert found == [], (SEED, path.name, where, bit)
        path.write_bytes(data)


def test_a_file_that_is_gone_or_forbidden_costs_its_rows_alone(
    tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    options, table, sound = _written(tmp_path, kind)
    reader = open_kind(tmp_path, options)
    reader.read(table, [SPEC])
    victim = [path for path in files_of(tmp_path) if path.suffix != ".json"][-1]
    content = victim.read_bytes()
    (tmp_path / "neighbour").touch()  # in an empty folder nobody could tell it from an outage
    victim.unlink()
    for opened in (reader, open_kind(tmp_path, options)):
        try:
            batch: CutoutBatch | None = opened.read(table, [SPEC])
        except InputError:
            batch = None
        assert differing(batch, sound) == []
        assert batch is None or batch.failures
    victim.write_bytes(content)
    _forbid(victim, monkeypatch)
    batch = read(tmp_path, options, table)
    assert differing(batch, sound) == []
    assert batch is None or {f.reason for f in batch.failures} <= _DAMAGE | _OF_PIXELS


def _forbid(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a file without permissions does to its reader; root, who may read all, included."""
    original, original_h5 = os.open, h5py.File

    def refused(name: Any, *args: Any, **more: Any) -> int:
        if str(name) == str(path):
            raise PermissionError(13, "Permission denied", str(name))
        return original(name, *args, **more)

    def refused_h5(name: Any, *args: Any, **more: Any) -> Any:
        if str(name) == str(path):
            raise PermissionError(13, "Permission denied", str(name))
        return original_h5(name, *args, **more)

    monkeypatch.setattr(os, "open", refused)
    monkeypatch.setattr(h5py, "File", refused_h5)


def test_a_lost_chunk_is_not_read_as_the_fill_value(tmp_path: Path) -> None:
    for name in ("zarr", "zarr_checked", "zarr_sharded"):
        folder = tmp_path / name
        folder.mkdir()
        options, table, sound = _written(folder, name)
        (folder / "a.zarr" / "images" / "c" / "1" / "0" / "0" / "0").unlink()
        lost = range(6, 12) if name == "zarr_sharded" else range(3, 6)
        batch = read(folder, options, table)
        assert batch is not None
        assert {f.row: f.reason for f in batch.failures} == dict.fromkeys(lost, Reason.NOT_FOUND)
        assert differing(batch, sound) == []
        sparse = read(folder, {**options, "sparse": True}, table)
        assert sparse is not None
        assert {f.reason for f in sparse.failures} == {Reason.CONSTANT_IMAGE}


def test_a_chunk_of_hdf5_that_was_never_written_is_no_pixel(tmp_path: Path) -> None:
    for filters in ({}, {"compression": "gzip"}, {"fletcher32": True}):
        with h5py.File(tmp_path / "a.h5", "w") as file:
            data = file.create_dataset("images", stamps().shape, "f4", **_CHUNK, **filters)
            data[:6] = stamps()[:6]
            data[9:] = stamps()[9:]
        options = {
            "reader": "hdf5",
            "path": "a.h5",
            "bands": BANDS,
            "row": "object_id",
            "pixel_scale_arcsec": 0.25,
        }
        batch = read(tmp_path, options, _table())
        assert batch is not None
        assert {f.row: f.reason for f in batch.failures} == dict.fromkeys(
            range(6, 9), Reason.NOT_FOUND
        )
        np.testing.assert_array_equal(batch.images["image"], np.delete(stamps(), [6, 7, 8], 0))


def test_a_file_that_is_written_again_is_not_mixed_with_what_was_known_of_it(
    tmp_path: Path,
) -> None:
    options, table, _ = _written(tmp_path, "hdf5")
    reader = open_kind(tmp_path, options)
    reader.read(table, [SPEC])
    with h5py.File(tmp_path / "new.h5", "w") as file:
        file.create_dataset("images", data=stamps()[::-1])
    (tmp_path / "new.h5").replace(tmp_path / "a.h5")
    batch = reader.read(table, [SPEC])
    assert {f.reason for f in batch.failures} == {Reason.UNREADABLE}
    assert len(batch) == 0
    assert "changed" in batch.failures[0].detail


def test_a_tile_that_shrinks_while_it_is_read_costs_rows_and_no_process(tmp_path: Path) -> None:
    """A writer cuts the tiles short and grows them again, all the time."""
    options, table, sound = _written(tmp_path, "coadd")
    paths = {path: path.stat().st_size for path in tmp_path.glob("*.fits")}
    whole = {path: path.read_bytes() for path in paths}
    done = threading.Event()

    def disturb() -> None:
        while not done.is_set():
            for path, size in paths.items():
                os.truncate(path, size // 2)
                path.write_bytes(whole[path])

    writer = threading.Thread(target=disturb)
    writer.start()
    try:
        for _ in range(60):
            assert differing(read(tmp_path, options, table), sound) == []
    finally:
        done.set()
        writer.join()


@pytest.mark.timeout(60)
def test_a_fifo_is_refused_and_not_waited_for(tmp_path: Path, kind: str) -> None:
    options, table, sound = _written(tmp_path, kind)
    for victim in files_of(tmp_path)[:3]:
        content = victim.read_bytes()
        victim.unlink()
        os.mkfifo(victim)
        assert stat.S_ISFIFO(victim.stat().st_mode)
        batch = read(tmp_path, options, table)
        assert differing(batch, sound) == []
        victim.unlink()
        victim.write_bytes(content)


@pytest.fixture
def few_descriptors() -> Iterator[None]:
    """No file can be opened: the limit is what is open already."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    lowest = os.dup(0)
    os.close(lowest)
    resource.setrlimit(resource.RLIMIT_NOFILE, (lowest, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


def test_no_row_fails_for_want_of_file_descriptors(
    tmp_path: Path, kind: str, request: pytest.FixtureRequest
) -> None:
    """The fault is the process's: it is raised, and the shard is tried again."""
    options, table, _ = _written(tmp_path, kind)
    reader = open_kind(tmp_path, options)
    reader.read(table, [SPEC])
    request.getfixturevalue("few_descriptors")
    with pytest.raises(OSError, match=r"[Tt]oo many open files|errno = 24"):
        reader.read(table, [SPEC])
