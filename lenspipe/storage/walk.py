"""Local folders listed so that nothing in them is passed over in silence.

The standard library's `glob` and `os.walk`, and fsspec with them, leave out a folder that cannot be
listed, as of a file server that is away: a smaller catalogue would be taken for the whole one.
"""

from __future__ import annotations

import errno
import fnmatch
import os
import re
from collections.abc import Iterator, Sequence

from lenspipe.storage.outage import OF_THE_STORAGE
from lenspipe.storage.remote import OutageError

_MAGIC = re.compile(r"[*?\[]")
Seen = set[tuple[int, int]]


def files_below(folder: str) -> Iterator[str]:
    """All files below a folder, sorted within each; links to folders are followed, each folder is
    entered once, by the first name that leads to it.

    OutageError where the storage is away, OSError where a folder may not be listed.
    """
    yield from (path for path, is_folder in _below(folder, set()) if not is_folder)


def matches(pattern: str) -> list[str]:
    """What matches a glob (`*`, `?`, `[…]`, `**` for any folders), sorted; hidden names too.

    Errors as of `files_below`; a folder that is not there matches nothing.
    """
    start = "/" if pattern.startswith("/") else ""
    parts = [part for part in pattern.split("/") if part]
    return sorted(set(_matches(start, parts)))


def _matches(folder: str, parts: Sequence[str]) -> Iterator[str]:
    if not parts:
        yield folder
        return
    first, rest = parts[0], parts[1:]
    if first == "**":
        if rest or _status(folder) is not None:
            yield from _matches(folder, rest)
        for path, is_folder in _below(folder, set()):
            if is_folder or not rest:
                yield from _matches(path, rest)
    elif _MAGIC.search(first):
        fits = re.compile(fnmatch.translate(first)).match
        for entry in _entries(folder):
            if fits(entry.name) and (not rest or _is_folder(entry)):
                yield from _matches(_join(folder, entry.name), rest)
    else:
        path = _join(folder, first)
        if rest or _is_there(path):
            yield from _matches(path, rest)


def _below(folder: str, seen: Seen) -> Iterator[tuple[str, bool]]:
    """(path, whether it is a folder) of everything below `folder`."""
    status = _status(folder)
    if status is None or (status.st_dev, status.st_ino) in seen:
        return
    seen.add((status.st_dev, status.st_ino))
    for entry in _entries(folder):
        path, is_folder = _join(folder, entry.name), _is_folder(entry)
        yield path, is_folder
        if is_folder:
            yield from _below(path, seen)


def _entries(folder: str) -> list[os.DirEntry[str]]:
    """What is in a folder, by name; nothing where it is not there or is no folder."""
    try:
        with os.scandir(folder or ".") as entries:
            return sorted(entries, key=lambda entry: entry.name)
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        raise _told(error, folder) from error


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError as error:
        if error.errno == errno.ELOOP:  # a link to itself
            return False
        raise _told(error, entry.path) from error


def _is_there(path: str) -> bool:
    try:
        os.lstat(path)
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError as error:
        raise _told(error, path) from error
    return True


def _status(folder: str) -> os.stat_result | None:
    try:
        return os.stat(folder or ".")  # noqa: PTH116 - the path is text, and so it stays
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise _told(error, folder) from error


def _told(error: OSError, path: str) -> Exception:
    """An outage where the storage is away as a whole, else the error itself."""
    if error.errno in OF_THE_STORAGE:
        return OutageError(f"{path}: cannot be listed: {error.strerror}")
    return error


def _join(folder: str, name: str) -> str:
    return f"{folder}{name}" if not folder or folder.endswith("/") else f"{folder}/{name}"
