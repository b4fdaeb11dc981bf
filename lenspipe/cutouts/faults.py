"""What reading damaged files raises, and which of it no file is to blame for."""

from __future__ import annotations

import errno
import zlib

# Faults of the process or its machine: another attempt may find them gone, so they end the read
# (its shard is tried again) rather than fail the rows of whatever file they happened to meet.
_OF_THE_PROCESS = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EINTR})


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
    """Whether an error says something of this process (no file descriptor left, no memory)."""
    return isinstance(error, MemoryError) or (
        isinstance(error, OSError) and error.errno in _OF_THE_PROCESS
    )


def raise_if_of_the_process(error: BaseException) -> None:
    """Raise `error` again where no file is to blame for it."""
    if of_the_process(error):
        raise error
