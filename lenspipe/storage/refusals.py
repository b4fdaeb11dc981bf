"""What storage or the system refused, in words that say what would help."""

from __future__ import annotations

import errno
import os
import resource
from pathlib import Path

from lenspipe.redaction import redact
from lenspipe.storage.outage import OF_THE_MACHINE, OF_THE_STORAGE
from lenspipe.storage.remote import OutageError
from lenspipe.storage.store import is_spill_fault

_FULL = (errno.ENOSPC, errno.EDQUOT)
_NO_FILES = (errno.EMFILE, errno.ENFILE)
_REFUSED = (
    *_FULL,
    errno.EROFS,
    errno.EACCES,
    errno.EPERM,
    *OF_THE_STORAGE,
    *OF_THE_MACHINE,
)
_LONGEST = 500  # characters of what the system or a library said


def is_refusal(error: BaseException) -> bool:
    """Whether the system refused what it would take at another time, or from another user."""
    return (
        is_spill_fault(error)
        or isinstance(error, OutageError)
        or (isinstance(error, OSError) and error.errno in _REFUSED)
    )


def describe_refusal(error: BaseException, near: str | None = None) -> str:
    """One line: what was refused, and for a full disk how much of it is free.

    near: a folder on the disk in question, where the error itself names no path.
    """
    text = redact(" ".join(str(error).split()))[:_LONGEST]
    code = error.errno if isinstance(error, OSError) else None
    if code in _NO_FILES:
        return f"{text} (this process may open {_open_files()} files; `ulimit -n` sets it)"
    if code in _FULL or is_spill_fault(error):
        place = _path_of(error) or near
        return f"{text} ({_free(Path(place))})" if place and "://" not in place else text
    return text


def _path_of(error: BaseException) -> str | None:
    name = error.filename if isinstance(error, OSError) else None
    return os.fsdecode(name) if isinstance(name, str | bytes) else None


def _free(place: Path) -> str:
    """Space and files that the disk under a path still takes from this user."""
    there = next(path for path in (place.absolute(), *place.absolute().parents) if path.is_dir())
    disk = os.statvfs(there)
    free = disk.f_bavail * disk.f_frsize
    files = f", {disk.f_favail:,} more files" if disk.f_files else ""  # btrfs counts none
    return f"{free:,} bytes free{files} on the disk of {there}"


def _open_files() -> int:
    return resource.getrlimit(resource.RLIMIT_NOFILE)[0]
