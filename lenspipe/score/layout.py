"""How a folder or file of cutouts is laid out: said by a small YAML file, or seen from its files.

    catalogue: ps1_catalogue.csv          # CSV or Parquet; relative to the folder of cutouts
    columns: {id: folder}                 # as in a survey file
    cutouts:                              # as in a survey file
      reader: hdf5
      path: ps1_grizy_70px.h5
      bands: [g, r, i, z, y]
      row: catalogue_row                  # position in the catalogue, counted from 0
      zero_point: {exptime_column: "exptime_{band}"}
      crop: true

Paths start from the folder that is scored, so that one layout serves every folder like it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import yaml
import zarr
from pydantic import Field, ValidationError

from lenspipe import cutouts
from lenspipe.config import Columns, is_url, resolve
from lenspipe.cutouts.base import Block, ReaderOptions
from lenspipe.cutouts.faults import UnreadableError
from lenspipe.cutouts.files.storedfile import require_regular
from lenspipe.cutouts.formats.zarr import require_regular_metadata
from lenspipe.cutouts.stacks import stated_bands
from lenspipe.errors import InputError
from lenspipe.problems import first_problem
from lenspipe.storage.names import require_sound
from lenspipe.yaml_file import parse_yaml, read_yaml

CATALOGUE_ROW = "catalogue_row"  # column with a row's position, added to every catalogue
HDF5_SUFFIXES = (".h5", ".hdf5")
STAMP = re.compile(r"(?P<object_id>.+)_(?P<band>[A-Za-z][A-Za-z0-9]*)(?P<end>\.fits(\.fz|\.gz)?)")


class LayoutFile(Block):
    """A layout file; see the module. cutouts: the reader's options, `{}` to see them from files."""

    catalogue: str | None = None
    columns: Columns = Columns()
    cutouts: dict[str, Any] = Field(default_factory=dict)


@dataclass(frozen=True)
class CutoutLayout:
    """What is needed to read cutouts. base: the folder that the options' paths start from."""

    base: str
    options: ReaderOptions
    columns: Columns
    catalogue: str | None


def find_layout(
    path: str | Path,
    layout: str | Path | None = None,
    options: Mapping[str, Any] | None = None,
) -> CutoutLayout:
    """Layout of the cutouts at `path`: a layout file itself, or a file or folder of pixels.

    layout: a layout file for the folder `path`. options: reader options over those that the layout
    or the files give. InputError names what is missing.
    """
    _require_local(path, "CUTOUTS", "a file or folder of this machine, or a layout with URLs")
    where = Path(path)
    if layout is None and where.suffix in (".yaml", ".yml"):
        layout, where = where, where.parent
    said = read_layout(layout) if layout is not None else LayoutFile()
    block = _merged(said.cutouts, options or {})
    try:
        if not where.exists():
            raise InputError("CUTOUTS", "a file or folder", f"nothing at {where}")
        base = where if where.is_dir() and where.suffix != ".zarr" else where.parent
        if "reader" not in block:
            block = _merged(see_options(where, block), block)
    except PermissionError as error:
        raise InputError(f"CUTOUTS {where}", "what may be read and listed", error) from error
    return CutoutLayout(
        base=str(base.absolute()),
        options=parse_options(block),
        columns=said.columns,
        catalogue=said.catalogue and resolve(said.catalogue, str(base.absolute()), "catalogue"),
    )


def _require_local(path: str | Path, field: str, expected: str) -> None:
    require_sound(str(path), field)
    if is_url(str(path)):
        raise InputError(field, expected, path)


def read_layout(path: str | Path) -> LayoutFile:
    """Parse a layout file. InputError names the key that is wrong."""
    _require_local(path, "--layout", "a file of this machine")
    content = read_yaml(Path(path), f"layout {path}")
    try:
        return LayoutFile.model_validate(content)
    except ValidationError as error:
        raise first_problem(error, f"layout {path}:") from error


def parse_options(block: Mapping[str, Any]) -> ReaderOptions:
    """Validated options of the reader that `block` names."""
    model = cutouts.options_model(str(block.get("reader")))
    try:
        return model.model_validate(dict(block))
    except ValidationError as error:
        raise first_problem(error, "cutouts") from error


def parse_settings(settings: Sequence[str]) -> dict[str, Any]:
    """`zero_point.constant=25` and the like as nested reader options; values are YAML."""
    found: dict[str, Any] = {}
    for setting in settings:
        key, equals, text = setting.partition("=")
        if not equals or not key:
            raise InputError("--set", "KEY=VALUE", repr(setting))
        try:
            value = parse_yaml(text)
        except yaml.YAMLError as error:
            raise InputError(f"--set {key}", "a YAML value", repr(text)) from error
        for part in reversed(key.split(".")):
            value = {part: value}
        found = _merged(found, value)
    return found


def see_options(path: Path, chosen: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Reader options as far as the files say them. chosen: those given, such as an array's name."""
    given = chosen or {}
    if path.suffix in HDF5_SUFFIXES:
        return _see_hdf5(path, given)
    if path.suffix == ".zarr":
        return _see_zarr(path, given)
    if path.is_dir():
        return _see_folder(path, given)
    raise InputError("CUTOUTS", "a .h5, .hdf5 or .zarr, a folder, or a layout (.yaml)", path)


def _see_folder(folder: Path, chosen: Mapping[str, Any]) -> dict[str, Any]:
    stores = sorted(p for p in folder.iterdir() if p.suffix in (*HDF5_SUFFIXES, ".zarr"))
    stamps = [m for p in sorted(folder.iterdir()) if (m := STAMP.fullmatch(p.name))]
    if len(stores) + bool(stamps) != 1:
        kinds = [p.name for p in stores] + (["FITS stamps"] if stamps else [])
        raise InputError(
            f"CUTOUTS {folder}",
            "one .h5 or .zarr, or stamps called NAME_BAND.fits; or --layout FILE",
            ", ".join(kinds) or "none of them",
        )
    return see_options(stores[0], chosen) if stores else _see_stamps(folder, stamps)


def _see_stamps(folder: Path, found: Sequence[re.Match[str]]) -> dict[str, Any]:
    ends = {match["end"] for match in found}
    if len(ends) > 1:
        raise InputError(f"CUTOUTS {folder}", "one kind of FITS file", ", ".join(sorted(ends)))
    bands = {match["band"]: match["band"] for match in found}
    return {"reader": "stamps", "path": f"{{object_id}}_{{band}}{ends.pop()}", "bands": bands}


def _see_hdf5(path: Path, chosen: Mapping[str, Any]) -> dict[str, Any]:
    names: dict[str, Any] = {}

    def visit(name: str, item: Any) -> None:
        if isinstance(item, h5py.Dataset) and item.ndim == 4:
            names[name] = item.attrs.get("bands")

    try:
        require_regular(str(path))
        with h5py.File(path, "r") as file:
            file.visititems(visit)
    except (OSError, UnreadableError) as error:
        raise InputError(f"CUTOUTS {path}", "an HDF5 file", error) from error
    return {"reader": "hdf5", "path": path.name, **_stack(path, "dataset", names, chosen)}


def _see_zarr(path: Path, chosen: Mapping[str, Any]) -> dict[str, Any]:
    try:
        for folder in (path, *filter(Path.is_dir, path.glob("*"))):
            require_regular_metadata(str(folder))
        found = zarr.open(str(path), mode="r")
    except (OSError, ValueError, KeyError, UnreadableError) as error:
        raise InputError(f"CUTOUTS {path}", "a Zarr store", error) from error
    if isinstance(found, zarr.Array):
        raise InputError(f"CUTOUTS {path}", "a Zarr group with an array in it", "a single array")
    names = {name: a.attrs.get("bands") for name, a in found.arrays() if a.ndim == 4}
    return {"reader": "zarr", "path": path.name, **_stack(path, "array", names, chosen)}


def _stack(
    path: Path, key: str, found: Mapping[str, Any], chosen: Mapping[str, Any]
) -> dict[str, Any]:
    """Options that a store of arrays (n, band, y, x) gives: which array, which bands."""
    arrays = {name: bands for name, bands in found.items() if chosen.get(key) in (None, name)}
    if len(arrays) != 1:
        raise InputError(
            f"CUTOUTS {path}",
            f"one array (n, band, y, x), or --set {key}=NAME",
            ", ".join(found) or "none",
        )
    name, attribute = next(iter(arrays.items()))
    bands = stated_bands(attribute)
    known = {key: name, "row": CATALOGUE_ROW}
    return known if bands is None else {**known, "bands": list(bands)}


def _merged(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """`over` on top of `base`, mappings within mappings too; a `row` or `ids` replaces either."""
    merged = dict(base)
    if {"row", "ids"} & set(over):
        merged.pop("row", None)
        merged.pop("ids", None)
    for key, value in over.items():
        both = isinstance(value, Mapping) and isinstance(merged.get(key), Mapping)
        merged[key] = _merged(merged[key], value) if both else value
    return merged
