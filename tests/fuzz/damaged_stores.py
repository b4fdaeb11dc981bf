"""Small stores of every reader, and one damage to them: what fuzzing of the readers works on."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pyarrow as pa
import zarr
from astropy.io import fits
from zarr.codecs import ZstdCodec

from lenspipe import cutouts
from lenspipe.contracts import CutoutBatch, InputSpec, Reason
from lenspipe.errors import InputError

N, SIDE, BANDS = 4, 8, ("g", "r")
SPEC = InputSpec("image", BANDS, SIDE, 0.25)


@dataclass(frozen=True)
class Store:
    """A sound store. files: those that are damaged."""

    folder: Path
    options: dict[str, Any]
    files: tuple[Path, ...]

    def read(self) -> CutoutBatch | None:
        """What the reader makes of it; None where it refuses the store in one line."""
        model = cutouts.options_model(self.options["reader"])
        table = pa.table({"object_id": np.arange(N), "ra": [10.0] * N, "dec": [0.0] * N})
        try:
            reader = cutouts.open_reader(model.model_validate(self.options), str(self.folder))
            reader.locality(table)
            batch = reader.read(table, [SPEC])
        except InputError as error:
            if "\n" in str(error):
                raise AssertionError("an error of several lines") from error
            return None
        if any(failure.reason not in Reason or not failure.detail for failure in batch.failures):
            raise AssertionError("a failure without reason or detail")
        if not all(np.isfinite(images).all() for images in batch.images.values()):
            raise AssertionError("a pixel that is not finite")
        return batch

    def damaged(self, which: int, patches: Sequence[tuple[int, bytes]], cut: int | None) -> None:
        """Read with one file patched at some places, cut at one, and then restored."""
        path = self.files[which % len(self.files)]
        sound = path.read_bytes()
        data = bytearray(sound)
        for offset, patch in patches:
            at = offset % max(len(data), 1)
            data[at : at + len(patch)] = patch
        try:
            path.write_bytes(data[: len(data) if cut is None else cut % (len(data) + 1)])
            self.read()
        finally:
            path.write_bytes(sound)


def _pixels() -> np.ndarray[Any, np.dtype[np.float32]]:
    shape = (N, len(BANDS), SIDE, SIDE)
    return np.random.default_rng(1).normal(5.0, 1.0, shape).astype(np.float32)


def _header() -> fits.Header:
    step = 0.25 / 3600
    cards = {"CTYPE1": "RA---TAN", "CTYPE2": "DEC--TAN", "CRVAL1": 10.0, "CRVAL2": 0.0}
    return fits.Header({**cards, "CRPIX1": 5, "CRPIX2": 5, "CDELT1": -step, "CDELT2": step})


def _coadd(folder: Path, compressed: bool = False) -> dict[str, Any]:
    for index, band in enumerate(BANDS):
        image, path = _pixels()[0, index], folder / f"t_{band}.fits"
        if compressed:
            fits.CompImageHDU(image, _header()).writeto(f"{path}.fz")
        else:
            fits.PrimaryHDU(image, _header()).writeto(path)
    names = {band: f"{{tile}}_{band}.fits" for band in BANDS}
    return {"reader": "coadd", "tiles": "t_*", "bands": names}


def _stamps(folder: Path) -> dict[str, Any]:
    for number, stamp in enumerate(_pixels()):
        for band, pixels in zip(BANDS, stamp, strict=True):
            fits.PrimaryHDU(pixels, _header()).writeto(folder / f"{number}_{band}.fits")
    bands = {band: band for band in BANDS}
    return {"reader": "stamps", "path": "{object_id}_{band}.fits", "bands": bands}


def _hdf5(folder: Path, **layout: Any) -> dict[str, Any]:
    with h5py.File(folder / "a.h5", "w") as file:
        file.create_dataset("images", data=_pixels(), **layout)
        file["ids"] = np.arange(N)
    found = {"reader": "hdf5", "path": "a.h5", "bands": BANDS, "ids": "ids"}
    return {**found, "pixel_scale_arcsec": 0.25}


def _zarr(folder: Path, **layout: Any) -> dict[str, Any]:
    group = zarr.open_group(folder / "a.zarr", mode="w", zarr_format=3)
    array = group.create_array("images", shape=_pixels().shape, dtype="f4", **layout)
    array[...] = _pixels()
    found = {"reader": "zarr", "path": "a.zarr", "bands": BANDS, "row": "object_id"}
    return {**found, "pixel_scale_arcsec": 0.25}


_TWO, _ONE = (2, len(BANDS), SIDE, SIDE), (1, len(BANDS), SIDE, SIDE)
WRITERS: dict[str, Callable[[Path], dict[str, Any]]] = {
    "coadd": _coadd,
    "coadd_fz": lambda folder: _coadd(folder, compressed=True),
    "stamps": _stamps,
    "hdf5": _hdf5,
    "hdf5_gzip": lambda folder: _hdf5(folder, chunks=_TWO, compression="gzip", shuffle=True),
    "zarr": lambda folder: _zarr(folder, chunks=_TWO, compressors=None),
    "zarr_zstd": lambda folder: _zarr(folder, chunks=_TWO, compressors=[ZstdCodec()]),
    "zarr_sharded": lambda folder: _zarr(folder, chunks=_ONE, shards=_TWO),
}


def write(name: str, folder: Path) -> Store:
    """A sound store of one kind in an empty folder."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    options = WRITERS[name](folder)
    files = tuple(sorted(path for path in folder.rglob("*") if path.is_file()))
    store = Store(folder, options, files)
    if store.read() is None:
        raise AssertionError(f"{name}: a sound store was refused")
    return store
