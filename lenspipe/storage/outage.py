"""Whether storage is away as a whole, or one file of it is at fault."""

from __future__ import annotations

import errno
import os
from itertools import islice

# Of a disk or a file server that is away: its files are not at fault.
OF_THE_STORAGE = frozenset(
    {
        errno.EIO,
        errno.ENODEV,
        errno.ENXIO,
        errno.EREMOTEIO,
        errno.ENOMEDIUM,
        errno.ESTALE,
        errno.ENOLINK,
        errno.ENOTCONN,
        errno.ETIMEDOUT,
        errno.ECONNREFUSED,
        errno.ECONNRESET,
        errno.ECONNABORTED,
        errno.EHOSTDOWN,
        errno.EHOSTUNREACH,
        errno.ENETDOWN,
        errno.ENETUNREACH,
    }
)
# Of a process or a machine that has no more to give for now.
OF_THE_MACHINE = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOMEM})
_NEIGHBOURS = 4  # files of a folder that are tried
_BLOCK = 4096


def is_passing(error: OSError) -> bool:
    """Whether the storage or the machine refused, and not the file: it may be read at another
    time."""
    return error.errno in OF_THE_STORAGE | OF_THE_MACHINE


def is_away(folder: str) -> bool:
    """Whether a local folder is gone or holds nothing, as where a disk is not mounted."""
    if "://" in folder:
        return False
    try:
        with os.scandir(folder or ".") as entries:
            return next(entries, None) is None
    except FileNotFoundError:
        return True
    except NotADirectoryError:
        return False


def folder_of(path: str) -> str:
    """The folder whose absence takes a file, or a store that is a folder itself, along."""
    return path if os.path.isdir(path) else os.path.dirname(path)  # noqa: PTH112, PTH120 - text


def reads_elsewhere(path: str) -> bool:
    """Whether the disk still gives something near a place that fails: the beginning of that local
    file, or of a neighbour. What the system holds in memory does not count."""
    folder = os.path.dirname(path) or "."  # noqa: PTH120 - text
    try:
        with os.scandir(folder) as entries:
            others = (entry.path for entry in entries if entry.path != path and entry.is_file())
            near = [path, *islice(others, _NEIGHBOURS)]
    except OSError:
        return False
    return any(_reads(other) for other in near)


def _reads(path: str) -> bool:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError:
        return False
    try:
        os.posix_fadvise(descriptor, 0, _BLOCK, os.POSIX_FADV_DONTNEED)
        return bool(os.pread(descriptor, 1, 0))
    except OSError:
        return False
    finally:
        os.close(descriptor)
