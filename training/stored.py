"""A simulated set on disk, HDF5 or Zarr, as named arrays with what stands on them."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

import h5py
import numpy as np
import zarr

from lenspipe.errors import InputError
from lenspipe.models.card import file_sha256

Array = np.ndarray[Any, Any]


class Stored(Protocol):
    """Names are those of `training.simulate.set_file`."""

    def names(self, group: str = "") -> list[str]:
        """Arrays and groups of the file or of one of its groups, sorted; none of an absent one."""

    def array(self, name: str) -> Array:
        """All of an array of numbers."""

    def words(self, name: str) -> Array:
        """All of an array of strings."""

    def told(self, name: str = "") -> dict[str, Any]:
        """Attributes of the file, with those of an array in front of them."""


class _Hdf5:
    def __init__(self, file: h5py.File) -> None:
        self._file = file

    def names(self, group: str = "") -> list[str]:
        return sorted(self._file.get(group, {}) if group else self._file)

    def array(self, name: str) -> Array:
        return np.asarray(self._file[name][:])

    def words(self, name: str) -> Array:
        return np.asarray(self._file[name].asstr()[:], str)

    def told(self, name: str = "") -> dict[str, Any]:
        return {**self._file.attrs, **(self._file[name].attrs if name else {})}


class _Zarr:
    def __init__(self, root: zarr.Group) -> None:
        self._root = root

    def names(self, group: str = "") -> list[str]:
        found = self._root.get(group) if group else self._root
        return sorted(found.keys()) if isinstance(found, zarr.Group) else []

    def array(self, name: str) -> Array:
        found = self._root[name]
        if not isinstance(found, zarr.Array):
            raise TypeError(f"expected an array {name}, found {type(found).__qualname__}")
        return np.asarray(found[:])

    def words(self, name: str) -> Array:
        return np.array(self.told(name)["names"], str)[self.array(name)]

    def told(self, name: str = "") -> dict[str, Any]:
        return {**self._root.attrs, **(self._root[name].attrs if name else {})}


@contextmanager
def open_set(path: str | Path, field: str) -> Iterator[Stored]:
    """A set for reading; a folder is a Zarr store. InputError(field): neither that nor HDF5."""
    if Path(path).is_dir():
        yield _Zarr(_opened_zarr(Path(path), field))
        return
    try:
        file = h5py.File(path, "r")
    except OSError as error:
        raise InputError(field, "a readable HDF5 file or Zarr store", error) from error
    with file:
        yield _Hdf5(file)


def _opened_zarr(path: Path, field: str) -> zarr.Group:
    try:
        return zarr.open_group(path, mode="r")
    except (OSError, ValueError, KeyError) as error:
        raise InputError(field, "a readable HDF5 file or Zarr store", error) from error


def set_sha256(path: str | Path) -> str:
    """SHA-256 of a file; of a store, of its files' names and hashes."""
    if not Path(path).is_dir():
        return file_sha256(path)
    found = hashlib.sha256()
    for file in sorted(each for each in Path(path).rglob("*") if each.is_file()):
        found.update(f"{file.relative_to(path).as_posix()} {file_sha256(file)}\n".encode())
    return found.hexdigest()
