"""The survey's own catalogue beside a run, where it is still where the run found it."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import pyarrow.dataset as pads
import pyarrow.fs as pafs

from lenspipe.config import is_url
from lenspipe.errors import InputError, LenspipeError
from lenspipe.run_directory import RUN, RunDirectory
from lenspipe.select.files import CatalogueFile, filesystem, find_files
from lenspipe.select.parquet_file import read_footer
from lenspipe.select.sources import hive_types
from lenspipe.storage.refusals import describe_refusal
from lenspipe.storage.store import is_storage_fault

SOURCES = "sources"
_EXPECTED = "the survey's catalogue where the run found it"


def open_sources(run: RunDirectory, field: str) -> pads.Dataset:
    """The catalogue as one table with the survey's own columns, those that folders' names spell
    out included; rows are read only when they are asked for.

    Its place is what `run.json` says, and nothing else. InputError, at `field`, where that says
    none, or nothing that can be read is there.
    """
    try:
        return _dataset(_files(run))
    except LenspipeError as error:
        raise InputError(field, _EXPECTED, error) from error
    except Exception as error:  # each store's library has exceptions of its own
        if not (is_storage_fault(error) or isinstance(error, pa.ArrowException)):
            raise
        raise InputError(field, _EXPECTED, describe_refusal(error)) from error


def _files(run: RunDirectory) -> list[CatalogueFile]:
    told = run.read_json(RUN) or {}
    survey = told.get("survey")
    asked: Any = survey.get("sources") if isinstance(survey, dict) else None
    path = asked.get("path") if isinstance(asked, dict) else None
    paths = (path,) if isinstance(path, str) else tuple(path or ())
    base = told.get("base")
    if not paths or not all(isinstance(name, str) for name in paths):
        raise InputError(f"{RUN}: survey.sources.path", "a path or a list of paths", repr(path))
    if not isinstance(base, str):
        told_none = "none: lenspipe run SURVEY.yaml on this run writes it"
        raise InputError(f"{RUN}: base", "the folder that paths start from", told_none)
    return find_files(paths, base)


def _dataset(files: list[CatalogueFile]) -> pads.Dataset:
    inside = read_footer(files[0])[1].remove_metadata()
    spelled = [(n, k) for n, k in hive_types(files).items() if n not in inside.names]
    folders = pads.partitioning(pa.schema(spelled), flavor="hive") if spelled else None
    schema = pa.schema([*inside, *(pa.field(name, kind) for name, kind in spelled)])
    grouped: dict[str, list[str]] = {}
    for file in files:  # paths of several stores may be one catalogue
        kind = file.path.partition("://")[0] if is_url(file.path) else ""
        grouped.setdefault(kind, []).append(file.path)
    children = []
    for paths in grouped.values():
        place, names = _place(paths)
        children.append(
            pads.dataset(
                names, schema=schema, format="parquet", filesystem=place, partitioning=folders
            )
        )
    return children[0] if len(children) == 1 else pads.dataset(children)


def _place(paths: list[str]) -> tuple[pafs.FileSystem, list[str]]:
    """Where some files of one kind of store are, and their paths there."""
    if not is_url(paths[0]):
        return pafs.LocalFileSystem(), paths
    fs, _ = filesystem(paths[0])
    return pafs.PyFileSystem(pafs.FSSpecHandler(fs)), [filesystem(path)[1] for path in paths]
