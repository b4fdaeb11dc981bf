"""`reader_vs_raw_*`: each cutout reader against reading the raw bytes of the same files.

Both sides find the files in the page cache and leave what they read in new memory: the reader as
one CutoutBatch of checked pixels, the raw side as the bytes of every file. Each pixel of the files
is in one cutout, so a ratio of pixels per second is a ratio of seconds. Stores that compress are
compared with the bare decompression of all their pixels too, by the library and in the threads
that the reader uses (`reader_vs_decompression_*`), which no reader can beat by much.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

import h5py
import numpy as np
import pyarrow as pa
import zarr
from astropy.io import fits

from lenspipe import cutouts
from lenspipe.contracts import InputSpec
from lenspipe.cutouts.base import Reader

BANDS = ("g", "r", "i")
SCALE_ARCSEC = 0.25
ZERO_POINT_MAG = 25.0
_CHUNK, _SHARD = 64, 1024
_TILES = 2
Pixels = np.ndarray[Any, np.dtype[np.float32]]


@dataclass(frozen=True)
class Stored:
    """Cutouts in one format. options: of the reader; table: the catalogue, every cutout once;
    decompress: unpacks all pixels and does nothing else, None where nothing is packed."""

    folder: Path
    options: Mapping[str, Any]
    table: pa.Table
    decompress: Callable[[], Any] | None = None

    def all_options(self) -> dict[str, Any]:
        """The reader's block of a survey file."""
        shared = {"zero_point": {"constant": ZERO_POINT_MAG}, "pixel_scale_arcsec": SCALE_ARCSEC}
        return {**shared, **self.options}

    def open(self) -> Reader:
        """The reader, with its zero point."""
        options = cutouts.options_model(self.options["reader"]).model_validate(self.all_options())
        return cutouts.open_reader(options, str(self.folder))

    def files(self) -> list[Path]:
        """Every file of the format."""
        return sorted(path for path in self.folder.rglob("*") if path.is_file())


def measure(
    objects: int = 2048, side: int = 48, rounds: int = 5, formats: Collection[str] = ()
) -> dict[str, float]:
    """Median over alternating rounds of raw seconds over the reader's, the same for bare
    decompression, and the readers' rates (Mpixel/s). formats: some of `FORMATS`, none: all."""
    found: dict[str, float] = {}
    with TemporaryDirectory(prefix="lenspipe-bench-") as folder:
        for name in formats or FORMATS:
            stored = FORMATS[name](Path(folder, name), noise(objects, side))
            found |= compare(name, stored, side, rounds)
    return found


def compare(name: str, stored: Stored, side: int, rounds: int) -> dict[str, float]:
    """The figures of one format."""
    spec = InputSpec("image", BANDS, side, SCALE_ARCSEC, ZERO_POINT_MAG + 2.0)
    reader, files = stored.open(), stored.files()
    steps: dict[str, Callable[[], Any]] = {
        "reader": lambda: reader.read(stored.table, [spec]),
        "raw": lambda: [_raw_bytes(path) for path in files],
    }
    if stored.decompress is not None:
        steps["decompression"] = stored.decompress
    batch = reader.read(stored.table, [spec])
    if len(batch) < batch.requested:
        raise RuntimeError(f"{name}: {batch.failures[0]}")
    del batch
    seconds: dict[str, list[float]] = {step: [] for step in steps}
    for turn in range(rounds + 1):
        for step, call in steps.items():
            taken = _seconds(call)
            if turn:  # the first round warms caches
                seconds[step].append(taken)
    pixels = stored.table.num_rows * len(BANDS) * side**2
    ratios = {
        f"reader_vs_{step}_{name}": median(
            other / ours for other, ours in zip(seconds[step], seconds["reader"], strict=True)
        )
        for step in steps
        if step != "reader"
    }
    return {**ratios, f"reader_{name}_mpixels_per_s": pixels / 1e6 / median(seconds["reader"])}


def _seconds(call: Callable[[], Any]) -> float:
    began = time.perf_counter()
    kept = call()
    taken = time.perf_counter() - began
    del kept  # what gives memory back is on neither clock
    return taken


def _raw_bytes(path: Path) -> np.ndarray[Any, Any]:
    """A file's bytes in a new array, by the fewest calls that there are."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        data = np.empty(os.fstat(descriptor).st_size, np.uint8)
        if os.readv(descriptor, [data.data]) != data.size:
            raise RuntimeError(f"{path}: a short read")
    finally:
        os.close(descriptor)
    return data


def noise(objects: int, side: int) -> Pixels:
    """Stamps of sky: lossless compression gains little on them, as on real ones."""
    rng = np.random.default_rng(1)
    return rng.normal(1.0, 0.1, (objects, len(BANDS), side, side)).astype(np.float32)


def _table(objects: int, **columns: Any) -> pa.Table:
    rows = np.arange(objects)
    base = {"object_id": rows, "ra": 10.0 + rows * 1e-4, "dec": rows * 0.0}
    return pa.table({**base, **columns})


def _header(ra: float, x: float, y: float) -> fits.Header:
    """TAN: zero-based pixel (x, y) is at (ra, 0)."""
    step = SCALE_ARCSEC / 3600
    cards = {"CTYPE1": "RA---TAN", "CTYPE2": "DEC--TAN", "CRVAL1": ra, "CRVAL2": 0.0}
    return fits.Header({**cards, "CRPIX1": x + 1, "CRPIX2": y + 1, "CDELT1": -step, "CDELT2": step})


def _write_coadd(folder: Path, stamps: Pixels, compressed: bool = False) -> Stored:
    """Tiles paved with stamps; the pixel of each source is at index side // 2 of its own."""
    folder.mkdir()
    side, across = stamps.shape[-1], math.isqrt(len(stamps) // _TILES)
    per_tile = across**2
    number = np.arange(per_tile)
    x = np.radians(SCALE_ARCSEC / 3600 * side) * (number % across)
    y = np.radians(SCALE_ARCSEC / 3600 * side) * (number // across)
    ra, dec = [], []
    for tile in range(_TILES):
        ra.append(10.0 + tile - np.degrees(np.arctan(x)))
        dec.append(np.degrees(np.arctan(y / np.hypot(1.0, x))))
        mine = stamps[tile * per_tile :][:per_tile].reshape(across, across, *stamps.shape[1:])
        header = _header(10.0 + tile, side // 2, side // 2)
        for index, band in enumerate(BANDS):
            image = mine[:, :, index].swapaxes(1, 2).reshape(across * side, across * side)
            path = folder / f"t{tile}_{band}.fits"
            if compressed:
                unit = fits.CompImageHDU(image, header)
                fits.HDUList([fits.PrimaryHDU(), unit]).writeto(f"{path}.fz")
            else:
                fits.PrimaryHDU(image, header).writeto(path)
    names = {band: f"{{tile}}_{band}.fits" for band in BANDS}
    table = _table(_TILES * per_tile, ra=np.concatenate(ra), dec=np.concatenate(dec))
    options = {"reader": "coadd", "tiles": "*.fits*", "bands": names}
    return Stored(folder, options, table, _astropy_pixels(folder) if compressed else None)


def _astropy_pixels(folder: Path) -> Callable[[], Any]:
    return lambda: [fits.getdata(path, 1) for path in sorted(folder.glob("*.fz"))]


def _write_stamps(folder: Path, stamps: Pixels) -> Stored:
    folder.mkdir()
    side = stamps.shape[-1]
    header = _header(10.0, side // 2, side // 2)
    for number, stamp in enumerate(stamps):
        for band, pixels in zip(BANDS, stamp, strict=True):
            fits.PrimaryHDU(pixels, header).writeto(folder / f"{number}_{band}.fits")
    options = {
        "reader": "stamps",
        "path": "{object_id}_{band}.fits",
        "bands": {band: band for band in BANDS},
    }
    return Stored(folder, options, _table(len(stamps)))


def _write_hdf5(folder: Path, stamps: Pixels, **layout: Any) -> Stored:
    folder.mkdir()
    path = folder / "stamps.h5"
    with h5py.File(path, "w") as file:
        file.create_dataset("images", data=stamps, **layout)

    def decompress() -> Any:
        with h5py.File(path, "r") as file:
            return file["images"][...]

    options = {"reader": "hdf5", "path": "stamps.h5", "bands": BANDS, "row": "object_id"}
    return Stored(folder, options, _table(len(stamps)), decompress if layout else None)


def _write_zarr(folder: Path, stamps: Pixels, **layout: Any) -> Stored:
    chunks = (layout.pop("rows", _CHUNK), *stamps.shape[1:])
    array = zarr.create_group(folder / "stamps.zarr").create_array(
        "images", shape=stamps.shape, chunks=chunks, dtype="float32", **layout
    )
    array[...] = stamps
    options = {"reader": "zarr", "path": "stamps.zarr", "bands": BANDS, "row": "object_id"}
    plain = layout.get("compressors", "auto") is None
    return Stored(folder, options, _table(len(stamps)), None if plain else lambda: array[...])


def _chunked(stamps: Pixels) -> dict[str, Any]:
    return {
        "chunks": (min(_CHUNK, len(stamps)), *stamps.shape[1:]),
        "compression": "gzip",
        "shuffle": True,
    }


def _sharded(stamps: Pixels) -> dict[str, Any]:
    return {"rows": 1, "shards": (min(_SHARD, len(stamps)), *stamps.shape[1:])}


FORMATS: dict[str, Callable[[Path, Pixels], Stored]] = {
    "coadd": _write_coadd,
    "coadd_fz": lambda folder, stamps: _write_coadd(folder, stamps, compressed=True),
    "stamps": _write_stamps,
    "hdf5": _write_hdf5,
    "hdf5_gzip": lambda folder, stamps: _write_hdf5(folder, stamps, **_chunked(stamps)),
    "zarr": _write_zarr,
    "zarr_plain": lambda folder, stamps: _write_zarr(folder, stamps, compressors=None),
    "zarr_sharded": lambda folder, stamps: _write_zarr(folder, stamps, **_sharded(stamps)),
}
