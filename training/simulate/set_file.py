"""A set's file: HDF5, or a Zarr v3 store with shards where its name ends in `.zarr`.

Both hold the arrays under one and the same names. Names of kinds and hosts are strings in HDF5;
Zarr v3 has no settled type for those, so there they are numbers, and the array's attribute `names`
says of what.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import zarr

from training.simulate.parts import Rows

# Examples in a shard, and in each chunk of it that a reader can fetch alone.
SHARD_ROWS, SHARD_CHUNK_ROWS = 1024, 16

Attributes = Mapping[str, Any]


def write(
    path: Path,
    n: int,
    rows: Callable[[], Iterable[Rows]],
    attributes: Attributes,
    of_arrays: Mapping[str, Attributes] | None = None,
) -> None:
    """Write n examples, given in order; the file appears under its name only when it is whole.

    rows: gives the runs anew at each call. attributes: of the file; of_arrays: of single arrays,
    where they differ.
    """
    aside = path.with_name(f"{path.name}.partial")
    if path.suffix == ".zarr":
        shutil.rmtree(aside, ignore_errors=True)
        _write_zarr(aside, n, rows, attributes, of_arrays or {})
    else:
        _write_hdf5(aside, n, rows, attributes, of_arrays or {})
    if path.is_dir():
        shutil.rmtree(path)
    aside.replace(path)


def _is_text(values: np.ndarray[Any, Any]) -> bool:
    return bool(values.dtype.kind == "U")


def _write_hdf5(
    path: Path,
    n: int,
    rows: Callable[[], Iterable[Rows]],
    attributes: Attributes,
    of_arrays: Mapping[str, Attributes],
) -> None:
    with h5py.File(path, "w") as file:
        for run in rows():
            for name, values in run.arrays.items():
                if name not in file:
                    _create_hdf5(file, name, n, values)
                place = slice(run.start, run.start + len(run))
                file[name][place] = list(values) if _is_text(values) else values
        file.attrs.update(attributes)
        for name, told in of_arrays.items():
            file[name].attrs.update(told)


def _create_hdf5(file: h5py.File, name: str, n: int, first: np.ndarray[Any, Any]) -> None:
    dtype = h5py.string_dtype() if _is_text(first) else first.dtype
    # Pixels lie in chunks of one run; numbers are small enough to lie in one piece.
    chunks = (min(len(first), n), *first.shape[1:]) if first.ndim > 1 else None
    file.create_dataset(name, (n, *first.shape[1:]), dtype, chunks=chunks)


def _write_zarr(
    path: Path,
    n: int,
    rows: Callable[[], Iterable[Rows]],
    attributes: Attributes,
    of_arrays: Mapping[str, Attributes],
) -> None:
    words = _words(rows())
    root = zarr.create_group(path, zarr_format=3, attributes=_plain(attributes))
    for shard in _shards(rows()):
        for name, values in shard.arrays.items():
            coded = _coded(values, words[name]) if name in words else values
            if name not in root:
                _create_zarr(root, name, n, coded, words.get(name), of_arrays.get(name, attributes))
            _zarr_array(root, name)[shard.start : shard.start + len(shard)] = coded


def _zarr_array(root: zarr.Group, name: str) -> zarr.Array[Any]:
    found = root[name]
    if not isinstance(found, zarr.Array):
        raise TypeError(f"expected an array {name}, found {type(found).__qualname__}")
    return found


def _create_zarr(
    root: zarr.Group,
    name: str,
    n: int,
    first: np.ndarray[Any, Any],
    words: list[str] | None,
    attributes: Attributes,
) -> None:
    told: dict[str, Any] = {} if words is None else {"names": words}
    if first.ndim > 1:
        told = {key: value for key, value in _plain(attributes).items() if key in _OF_PIXELS}
    root.create_array(
        name,
        shape=(n, *first.shape[1:]),
        dtype=first.dtype,
        chunks=(SHARD_CHUNK_ROWS, *first.shape[1:]),
        shards=(SHARD_ROWS, *first.shape[1:]),
        attributes=told,
    )


# What readers of cutouts look for on the array itself.
_OF_PIXELS = ("bands", "pixel_scale_arcsec", "zero_point_mag")


def _plain(attributes: Attributes) -> dict[str, Any]:
    """Attributes as JSON has them."""
    return {
        name: list(value) if isinstance(value, tuple) else value
        for name, value in attributes.items()
    }


def _words(rows: Iterable[Rows]) -> dict[str, list[str]]:
    """The different strings of each array of strings, sorted."""
    found: dict[str, set[str]] = {}
    for run in rows:
        for name, values in run.arrays.items():
            if _is_text(values):
                found.setdefault(name, set()).update(values.tolist())
    return {name: sorted(words) for name, words in found.items()}


def _coded(values: np.ndarray[Any, Any], words: list[str]) -> np.ndarray[Any, Any]:
    return np.searchsorted(np.array(words), values).astype(np.int32)


def _shards(rows: Iterable[Rows]) -> Iterator[Rows]:
    """Runs joined to whole shards, so that each shard is written once."""
    held: list[Rows] = []
    for run in rows:
        held.append(run)
        if (run.start + len(run)) % SHARD_ROWS == 0:
            yield _joined(held)
            held = []
    if held:
        yield _joined(held)


def _joined(runs: list[Rows]) -> Rows:
    names = runs[0].arrays
    return Rows(runs[0].start, {k: np.concatenate([run.arrays[k] for run in runs]) for k in names})
