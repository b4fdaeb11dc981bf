"""Bytes of a file, local or remote, by offset: short, changed and special files are told apart.

Local files are read with `pread`, never mapped: a file that shrinks while it is read is then an
error of its rows, where a mapping would end the process (SIGBUS).
"""

from __future__ import annotations

import gzip
import io
import os
import stat
from collections.abc import Mapping
from typing import Any, Protocol

import fsspec
import numpy as np

from lenspipe.cutouts.faults import UnreadableError, judged

_FLAGS = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK
_REMOTE_HEAD = 64 * 1024  # one request holds the headers of nearly every file


class Stored(Protocol):
    """A file of `size` bytes."""

    size: int

    def fetch(self, offset: int, length: int) -> bytes:
        """Up to `length` bytes; fewer where the file ends."""
        ...

    def read_into(self, offset: int, into: np.ndarray[Any, Any]) -> None:
        """Fill a contiguous array. UnreadableError where the file is too short."""
        ...

    def check_unchanged(self) -> None:
        """UnreadableError where the file is not what it was when it was opened."""
        ...

    def close(self) -> None:
        """Let it go."""
        ...


class LocalFile:
    """An open file of the local file system. FileNotFoundError where there is none;
    UnreadableError where it is no regular file (a FIFO would be waited for without end)."""

    _descriptor = -1

    def __init__(self, path: str) -> None:
        self._path = path
        try:
            self._descriptor = os.open(path, _FLAGS)
        except OSError as error:
            raise judged(error, path, lambda: os.close(os.open(path, _FLAGS))) from error
        found = os.fstat(self._descriptor)
        if not stat.S_ISREG(found.st_mode):
            self.close()
            raise UnreadableError(f"expected a regular file, found {_kind(found.st_mode)}")
        self.size = found.st_size
        self._time = found.st_mtime_ns

    def fetch(self, offset: int, length: int) -> bytes:
        """See `Stored`."""
        try:
            return os.pread(self._descriptor, length, offset)
        except OSError as error:
            raise self._judged(error, offset, length) from error

    def read_into(self, offset: int, into: np.ndarray[Any, Any]) -> None:
        """See `Stored`."""
        view = into.reshape(-1).view(np.uint8).data
        while view:
            try:
                got = os.preadv(self._descriptor, [view], offset)
            except OSError as error:
                raise self._judged(error, offset, len(view)) from error
            if not got:
                raise UnreadableError("the file ends inside its pixels")
            view, offset = view[got:], offset + got

    def _judged(self, error: OSError, offset: int, length: int) -> Exception:
        return judged(error, self._path, lambda: os.pread(self._descriptor, length, offset))

    def check_unchanged(self) -> None:
        """See `Stored`."""
        now = os.fstat(self._descriptor)
        if (now.st_size, now.st_mtime_ns) != (self.size, self._time):
            raise UnreadableError("the file changed while it was read")

    def close(self) -> None:
        """See `Stored`."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def __del__(self) -> None:
        self.close()


class RemoteFile:
    """A file of an object store, read by ranges."""

    def __init__(self, url: str) -> None:
        self._fs, self._path = fsspec.core.url_to_fs(url)
        self._told = _told(self._fs.info(self._path))
        self.size = int(self._told[0])
        head = min(_REMOTE_HEAD, self.size)
        self._head: bytes = self._fs.cat_file(self._path, start=0, end=head) if head else b""

    def fetch(self, offset: int, length: int) -> bytes:
        """See `Stored`."""
        stop = min(offset + length, self.size)
        if stop <= len(self._head) or offset >= self.size:
            return bytes(self._head[offset:stop])
        return bytes(self._fs.cat_file(self._path, start=offset, end=stop))

    def read_into(self, offset: int, into: np.ndarray[Any, Any]) -> None:
        """See `Stored`."""
        data = self.fetch(offset, into.nbytes)
        if len(data) != into.nbytes:
            raise UnreadableError("the file ends inside its pixels")
        into.reshape(-1).view(np.uint8)[:] = np.frombuffer(data, np.uint8)

    def check_unchanged(self) -> None:
        """See `Stored`."""
        self._fs.invalidate_cache()
        if _told(self._fs.info(self._path)) != self._told:
            raise UnreadableError("the file changed while it was read")

    def close(self) -> None:
        """See `Stored`."""


class BytesFile:
    """The bytes of a file that was read whole."""

    def __init__(self, data: Any) -> None:
        self._data = memoryview(data)
        self.size = len(self._data)

    def fetch(self, offset: int, length: int) -> bytes:
        """See `Stored`."""
        return bytes(self._data[offset : offset + length])

    def view(self, offset: int, length: int) -> memoryview:
        """Bytes without a copy. UnreadableError where there are fewer."""
        found = self._data[offset : offset + length]
        if len(found) < length:
            raise UnreadableError("the file ends inside its pixels")
        return found

    def read_into(self, offset: int, into: np.ndarray[Any, Any]) -> None:
        """See `Stored`."""
        into.reshape(-1).view(np.uint8)[:] = np.frombuffer(self.view(offset, into.nbytes), np.uint8)

    def check_unchanged(self) -> None:
        """What was read whole stays as it is."""

    def close(self) -> None:
        """See `Stored`."""


def is_remote(path: str) -> bool:
    """Whether a path is a URL."""
    return "://" in path


def open_stored(path: str) -> LocalFile | RemoteFile:
    """Open a local path or a URL for reading by offset."""
    return RemoteFile(path) if is_remote(path) else LocalFile(path)


def read_whole(path: str) -> memoryview:
    """All bytes of a local path or a URL. UnreadableError where they are not as many as told."""
    if is_remote(path):
        fs, name = fsspec.core.url_to_fs(path)
        return memoryview(fs.cat_file(name))
    file = LocalFile(path)
    try:
        data = np.empty(file.size, np.uint8)
        file.read_into(0, data)
        return data.data
    finally:
        file.close()


def gunzip(data: Any, most: int) -> bytes:
    """Bytes packed by gzip. UnreadableError where they become more than `most`."""
    with gzip.GzipFile(fileobj=io.BytesIO(data)) as stream:
        found = stream.read(most + 1)
    if len(found) > most:
        raise UnreadableError(f"packed bytes that become more than {most} are refused")
    return found


def fingerprint(path: str) -> tuple[Any, ...]:
    """What tells a file from what it becomes when it is written again: size, and time or ETag.
    FileNotFoundError where it is gone."""
    if is_remote(path):
        fs, name = fsspec.core.url_to_fs(path)
        fs.invalidate_cache(name)
        return _told(fs.info(name))
    found = os.stat(path)  # noqa: PTH116 - the path is text, and so it stays
    return (found.st_size, found.st_mtime_ns, found.st_ino)


def require_regular(path: str) -> None:
    """UnreadableError where a local path is there and no regular file: libraries that open by
    themselves would wait for a FIFO."""
    if not is_remote(path):
        mode = os.stat(path).st_mode  # noqa: PTH116 - the path is text, and so it stays
        if not stat.S_ISREG(mode):
            raise UnreadableError(f"expected a regular file, found {_kind(mode)}")


def _told(info: Mapping[str, Any]) -> tuple[Any, ...]:
    """What a store says of an object: size, ETag, time."""
    return (info["size"], info.get("ETag") or info.get("etag"), str(info.get("LastModified")))


def _kind(mode: int) -> str:
    kinds = {stat.S_IFIFO: "a FIFO", stat.S_IFDIR: "a folder", stat.S_IFSOCK: "a socket"}
    return kinds.get(stat.S_IFMT(mode), "a device")
