"""Which Parquet files a catalogue is made of, on a local disk or behind any fsspec URL."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from pathlib import PurePosixPath
from typing import Any
from urllib.parse import unquote

import fsspec

from lenspipe.config import is_url, resolve
from lenspipe.errors import InputError
from lenspipe.storage.names import require_sound
from lenspipe.storage.remote import raise_if_passing
from lenspipe.storage.walk import files_below

_SUFFIXES = (".parquet", ".parq", ".pq")
_NULL_PARTITION = "__HIVE_DEFAULT_PARTITION__"


@dataclass(frozen=True)
class CatalogueFile:
    """One Parquet file. path: absolute path or URL. fingerprint: changes when the file does.

    partition: (column, value) for each `column=value` folder above it.
    """

    path: str
    size_bytes: int
    fingerprint: str
    partition: tuple[tuple[str, str | None], ...] = ()


def find_files(paths: str | tuple[str, ...], base: str) -> list[CatalogueFile]:
    """All Parquet files of a catalogue, each once, sorted by path; InputError where none are."""
    found: dict[str, CatalogueFile] = {}
    for path in (paths,) if isinstance(paths, str) else paths:
        files = _find(resolve(path, base))
        if not files:
            raise InputError("sources.path", "Parquet files (.parquet)", f"none in {path}")
        found.update((file.path, file) for file in files)
    if not found:
        raise InputError("sources.path", "at least one path", "none")
    return [found[path] for path in sorted(found)]


def filesystem(path: str) -> tuple[fsspec.AbstractFileSystem, str]:
    """The fsspec filesystem of a path or URL, and the path inside it."""
    try:
        fs, inner = fsspec.core.url_to_fs(path)
    except (ValueError, ImportError) as error:
        raise InputError("sources.path", "a path or a URL that fsspec opens", error) from error
    return fs, inner


def fingerprint(path: str) -> tuple[int, str]:
    """Size in bytes and fingerprint of a file as it is now; FileNotFoundError where it is gone."""
    if not is_url(path):
        status = os.stat(path)  # noqa: PTH116  # one call per part, Path costs more than the call
        return status.st_size, f"{status.st_mtime_ns}"
    fs, inner = filesystem(path)
    fs.invalidate_cache()
    info = fs.info(inner)
    return int(info["size"] or 0), _stamp(info)


def _find(path: str) -> list[CatalogueFile]:
    fs, inner = filesystem(path)
    try:
        if fs.isfile(inner):
            return [_file(path, fs.info(inner), "")]
        root = _data_folder(fs, inner.rstrip("/"), path)
        return [
            _file(_outer(fs, path, name), info, name[len(root) + 1 :])
            for name, info in _below(fs, root, is_url(path))
            if _is_data(name[len(root) + 1 :])
        ]
    except InputError:
        raise
    except Exception as error:  # each store's library has exceptions of its own
        raise_if_passing(error)
        raise InputError("sources.path", "a readable catalogue", f"{path}: {error}") from error


def _below(
    fs: fsspec.AbstractFileSystem, root: str, remote: bool
) -> Iterable[tuple[str, dict[str, Any]]]:
    """All files below a folder; what a store tells of each, nothing of a local one."""
    if remote:
        found: dict[str, dict[str, Any]] = fs.find(root, detail=True)
        return found.items()
    return ((path, {}) for path in files_below(root))


def _data_folder(fs: fsspec.AbstractFileSystem, folder: str, shown: str) -> str:
    """Where the rows are: of a HATS collection its primary catalogue, of a HATS catalogue its
    `dataset`; else the folder itself. Margin and index catalogues repeat rows and are refused."""
    collection = _properties(fs, f"{folder}/collection.properties")
    if collection:
        primary = collection.get("hats_primary_table_url", "")
        if not primary or "/" in primary.strip("/") or primary.startswith("."):
            raise InputError(
                f"{shown}/collection.properties", "hats_primary_table_url: a folder", repr(primary)
            )
        folder = f"{folder}/{primary}"
    properties = _properties(fs, f"{folder}/hats.properties") or _properties(
        fs, f"{folder}/properties"
    )
    kind = properties.get("dataproduct_type", "object")
    if kind not in ("object", "source", "nested"):
        raise InputError("sources.path", "a HATS catalogue of objects", f"{shown} of type {kind}")
    dataset = f"{folder}/dataset"
    return dataset if properties and fs.isdir(dataset) else folder


def _properties(fs: fsspec.AbstractFileSystem, path: str) -> dict[str, str]:
    """Keys and values of a HATS properties file; empty where there is none."""
    if not fs.isfile(path):
        return {}
    lines = fs.cat_file(path).decode("utf-8", "replace").splitlines()
    pairs = (line.partition("=") for line in lines if not line.startswith("#"))
    return {key.strip(): value.strip() for key, sign, value in pairs if sign}


def _is_data(relative: str) -> bool:
    """Whether a path below the catalogue's folder is data: `_metadata`, `_common_metadata`, hidden
    files and HATS' thumbnail of other files' rows are not."""
    hidden = any(part.startswith((".", "_")) for part in relative.split("/"))
    return (
        relative.lower().endswith(_SUFFIXES) and not hidden and relative != "data_thumbnail.parquet"
    )


def _outer(fs: fsspec.AbstractFileSystem, asked: str, name: str) -> str:
    return str(fs.unstrip_protocol(name)) if is_url(asked) else name


def _file(path: str, info: dict[str, Any], relative: str) -> CatalogueFile:
    if is_url(path):
        size, stamp = int(info["size"] or 0), _stamp(info)
    else:
        size, stamp = _regular(path)
    return CatalogueFile(path, size, stamp, _hive(relative))


def _regular(path: str) -> tuple[int, str]:
    """Size and fingerprint of a local file; InputError for a name that Arrow does not open, a link
    to nowhere, and for a FIFO or a device, which would keep its reader waiting."""
    require_sound(path, "sources.path")
    try:
        regular = stat.S_ISREG(os.stat(path).st_mode)  # noqa: PTH116
    except FileNotFoundError:
        raise InputError("sources.path", "files that are there", f"a broken link {path}") from None
    if not regular:
        raise InputError("sources.path", "regular files", f"{path}, a FIFO or a device")
    return fingerprint(path)


def _stamp(info: dict[str, Any]) -> str:
    """ETag where the store has one, else the time of the last change."""
    for key in ("ETag", "etag", "md5Hash", "content_md5", "mtime", "LastModified", "created"):
        value = info.get(key)
        if value:  # some filesystems list a time as datetime and give it alone as a number
            return str(value.timestamp() if isinstance(value, datetime) else value)
    return ""


def _hive(relative: str) -> tuple[tuple[str, str | None], ...]:
    folders = PurePosixPath(relative).parts[:-1]
    pairs = (folder.partition("=") for folder in folders if "=" in folder)
    return tuple(
        (unquote(key), None if value == _NULL_PARTITION else unquote(value))
        for key, _, value in pairs
    )
