"""What reading damaged files raises, and which of it no file is to blame for."""

from __future__ import annotations

import errno
import os
import time
import zlib
from collections.abc import Callable

from lenspipe.storage.outage import OF_THE_STORAGE, is_away, reads_elsewhere

# Faults of the process or its machine: another attempt may find them gone, so they end the read
# (its shard is tried again) rather than fail the rows of whatever file they happened to meet.
_OF_THE_PROCESS = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EINTR})
_RESTS_S = (0.5, 1.0)  # before a place that fails is judged: a disk may need a moment


class UnreadableError(Exception):
    """A file is there, but its header or pixels cannot be read; the text says why."""


class MissingPixelsError(UnreadableError):
    """The file is sound, but the part that should hold these pixels was never written."""


# What reading and decoding damaged files raises, beside FileNotFoundError: Python's own readers,
# astropy, h5py, zarr, numcodecs.
READ_ERRORS = (
    UnreadableError,
    OSError,
    EOFError,
    zlib.error,
    ValueError,
    TypeError,
    KeyError,
    IndexError,
    RuntimeError,
    OverflowError,
    AttributeError,
)


def of_the_process(error: BaseException) -> bool:
    """Whether an error says something of this process (no file descriptor left, no memory) or of
    the storage as a whole."""
    return isinstance(error, MemoryError) or (
        isinstance(error, OSError) and error.errno in _OF_THE_PROCESS | OF_THE_STORAGE
    )


def raise_if_of_the_process(error: BaseException, folder: str | None = None) -> None:
    """Raise `error` again where no file is to blame for it; FileNotFoundError where `folder`, in
    which there were pixels when the run began, is gone or empty now."""
    if of_the_process(error):
        raise error
    if folder is not None:
        require_there(folder, error)


def require_there(folder: str, cause: BaseException | None = None) -> None:
    """FileNotFoundError where a folder that held pixels is gone or empty: its disk is away."""
    if is_away(folder):
        text = "the folder of the pixels is gone or empty"
        raise FileNotFoundError(errno.ENOENT, text, folder) from cause


def judged(error: OSError, path: str, again: Callable[[], object]) -> Exception:
    """What an error of a local file is to be raised as. A place that the disk cannot read (EIO) is
    a fault of its file where it fails again after rests and the disk reads others: then it is an
    UnreadableError; else it stays what it is, a fault of the storage."""
    if error.errno != errno.EIO:
        return error
    for rest in _RESTS_S:
        time.sleep(rest)
        try:
            again()
        except OSError:
            continue
        return error
    if reads_elsewhere(path):
        return UnreadableError(f"{os.strerror(errno.EIO)}, while other places of its disk read")
    return error
