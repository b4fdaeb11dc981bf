"""Which files of pixels are there, of what size and from when: by listings, no file is opened."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any

from lenspipe.config import is_url
from lenspipe.cutouts.faults import raise_if_of_the_process
from lenspipe.cutouts.files.listing import Listing, PixelFile
from lenspipe.errors import InputError
from lenspipe.storage.remote import url_to_fs
from lenspipe.storage.walk import files_below

_LISTED = 16  # files of one remote folder that a listing tells sooner than requests for each
_TAGS = ("ETag", "etag", "md5Hash", "content_md5")
_TIMES = ("mtime", "LastModified", "last_modified", "updated", "created")


def listed(paths: Sequence[str]) -> Listing:
    """These files as they are now; missing ones are left out."""
    folders: dict[str, list[str]] = {}
    for path in filter(is_url, paths):
        folders.setdefault(path.rpartition("/")[0], []).append(path)
    local = (_local(path) for path in paths if not is_url(path))
    remote = (file for folder, asked in folders.items() for file in _remote(folder, asked))
    return _listing(file for files in (local, remote) for file in files if file)


def listed_below(url: str) -> Listing:
    """All files below a folder or URL; of an object store one request for a thousand of them."""
    if is_url(url):
        fs, root = url_to_fs(url)
        start, folder = len(root.rstrip("/")), url.rstrip("/")
        found = fs.find(root, detail=True).items()
        return _listing(_told(f"{folder}{name[start:]}", info) for name, info in found)
    try:
        return _listing(file for path in files_below(url) if (file := _local(path)))
    except PermissionError as error:
        raise InputError(url, "folders that can be listed", error) from error


def merged(listings: Iterable[Listing]) -> Listing:
    """The files of several listings, each once."""
    return _listing({file.path: file for listing in listings for file in listing.files}.values())


def _listing(files: Iterable[PixelFile]) -> Listing:
    return Listing(sorted(files))


def _local(path: str) -> PixelFile | None:
    try:
        found = os.stat(path)  # noqa: PTH116 - asked of every file, Path costs as much again
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:  # a folder that may not be searched: told where the file is read
        raise_if_of_the_process(error)
        return PixelFile(path, 0, 0, "")
    return PixelFile(path, found.st_size, found.st_mtime_ns, "")


def _remote(folder: str, asked: Sequence[str]) -> Iterator[PixelFile]:
    """Some files of one remote folder: listed where they are many, else asked for."""
    fs, name = url_to_fs(folder)
    many = len(asked) >= _LISTED
    known = {info["name"]: info for info in fs.ls(name, detail=True)} if many else {}
    for path in asked:
        inner = url_to_fs(path)[1]
        try:
            info = known.get(inner) if many else fs.info(inner)
        except OSError:
            continue
        if info is not None:
            yield _told(path, info)


def _told(path: str, info: Mapping[str, Any]) -> PixelFile:
    """A file of a store, as the store's listing tells it."""
    tag = next((str(info[key]) for key in _TAGS if info.get(key)), "")
    time = next((info[key] for key in _TIMES if info.get(key)), None)
    return PixelFile(path, int(info.get("size") or 0), _time_ns(time), tag)


def _time_ns(time: Any) -> int:
    if isinstance(time, str):
        try:
            time = datetime.fromisoformat(time)
        except ValueError:
            return 0
    seconds = time.timestamp() if isinstance(time, datetime) else float(time or 0.0)
    return round(seconds * 1e6) * 1000
