"""Which cutouts there are, where no catalogue says it: one row per object of a file or folder."""

from __future__ import annotations

from typing import Any

import h5py
import numpy as np
import pyarrow as pa
import zarr

from lenspipe.config import resolve
from lenspipe.cutouts.base import ReaderOptions
from lenspipe.cutouts.faults import UnreadableError
from lenspipe.cutouts.files.paths import NameTemplate, expand
from lenspipe.cutouts.files.storedfile import require_regular
from lenspipe.cutouts.formats import hdf5, stamps
from lenspipe.cutouts.formats import zarr as zarr_reader
from lenspipe.cutouts.stacks import StackOptions, id_text, require_listable
from lenspipe.errors import InputError


def list_cutouts(options: ReaderOptions, base: str, positions: bool = True) -> pa.Table:
    """object_id, ra, dec (deg, NaN where unknown) and the columns by which the reader finds them.

    Stamps are named by their files; objects of an array by its identifiers, else by their position.
    positions: whether to open every stamp for what its header says of ra and dec.
    InputError for a reader whose pixels cannot be listed.
    """
    if isinstance(options, stamps.Options):
        return stamps.list_stamps(options, base, positions)
    if isinstance(options, hdf5.Options):
        return _rows(options, _hdf5(options, base))
    if isinstance(options, zarr_reader.Options):
        return _rows(options, _zarr(options, base))
    raise InputError("catalogue", f"one, as reader {options.reader} cuts where it is told", "none")


def name_columns(options: ReaderOptions, id_column: str) -> frozenset[str]:
    """Columns of a catalogue that name a source or its files, by text: the identifier, what a
    stamp's name is made of, what an array of identifiers is held against.

    id_column: the catalogue's own. Left out is what a template formats as a number.
    """
    names = {id_column}
    if isinstance(options, StackOptions) and options.ids:
        names.add(options.id_column)
    for text in (options.path, options.mask.file) if isinstance(options, stamps.Options) else ():
        template = NameTemplate(text or "", "cutouts.path")
        fields = {name: id_column if name == "object_id" else name for name in template.fields}
        names |= set(fields.values())
        names -= {column for name, column in fields.items() if template.is_number(name)}
    return frozenset(names - {"band"})


def _rows(options: StackOptions, found: list[Any] | int) -> pa.Table:
    count = found if isinstance(found, int) else len(found)
    rows = np.arange(count)
    identity = pa.array(rows) if isinstance(found, int) else pa.array([id_text(i) for i in found])
    unknown = pa.array(np.full(count, np.nan))
    columns = {"object_id": identity, "ra": unknown, "dec": unknown}
    finder = {options.row: pa.array(rows)} if options.row else {options.id_column: identity}
    return pa.table({**columns, **finder})


def _hdf5(options: hdf5.Options, base: str) -> list[Any] | int:
    """Identifiers of all files one after another, or how many objects there are."""
    lists: list[Any] = []
    total = 0
    for path in expand(options.path, base):
        field = f"cutouts.path {path}"
        try:
            require_regular(path)
            with h5py.File(path, "r") as file:
                total += int(hdf5.own_dataset(file, field, options.dataset, 4).shape[0])
                require_listable(field, total)
                if options.ids:
                    ids = hdf5.own_dataset(file, field, options.ids, 1)
                    require_listable(field, ids.shape[0])
                    lists += ids[...].tolist()
        except (OSError, UnreadableError) as error:
            raise InputError(field, "a readable HDF5 file", error) from error
    return lists if options.ids else total


def _zarr(options: zarr_reader.Options, base: str) -> list[Any] | int:
    name = options.ids or next(iter(options.names.values()))
    path = resolve(options.path, base)
    try:
        for folder in (path, f"{path}/{name}"):
            zarr_reader.require_regular_metadata(folder)
        found = zarr.open_group(path, mode="r")[name]
    except (OSError, KeyError, ValueError, UnreadableError) as error:
        raise InputError(f"cutouts.path {path}", "a readable Zarr store", error) from error
    if not isinstance(found, zarr.Array):
        raise InputError(f"cutouts.path {path}", f"an array {name}", "a group")
    require_listable(f"cutouts.path {path}", found.shape[0])
    return list(np.asarray(found[...]).tolist()) if options.ids else int(found.shape[0])
