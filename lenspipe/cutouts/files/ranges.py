"""Parts of many files, local or remote: each comes whole or as the fault that it met."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import fsspec
import numpy as np

from lenspipe.cutouts.faults import READ_ERRORS, UnreadableError, raise_if_of_the_process
from lenspipe.cutouts.files.storedfile import LocalFile, is_remote

Buffer = Any  # bytes, or a memoryview or an array of them


@dataclass(frozen=True)
class Range:
    """Bytes [start, stop) of a file; stop None: to its end; start negative: from its end."""

    name: str
    start: int = 0
    stop: int | None = None


class Files(Protocol):
    """The files below one root."""

    def read(self, ranges: Sequence[Range]) -> Iterator[Buffer | Exception]:
        """What is in each range, in their order. A fault of a file stands in its place
        (FileNotFoundError: there is none); a fault that no file is to blame for is raised."""
        ...


class LocalFiles:
    """Files of a folder. A file stays open from one range to the next of it."""

    def __init__(self, root: str) -> None:
        self._root = root

    def read(self, ranges: Sequence[Range]) -> Iterator[Buffer | Exception]:
        """See `Files`."""
        name, file = "", None
        try:
            for wanted in ranges:
                if file is None or wanted.name != name:
                    if file is not None:
                        file.close()
                        file = None
                    try:
                        file, name = LocalFile(f"{self._root}/{wanted.name}"), wanted.name
                    except READ_ERRORS as error:
                        raise_if_of_the_process(error, self._root)
                        yield error
                        continue
                yield _part(file, wanted)
        finally:
            if file is not None:
                file.close()


def _part(file: LocalFile, wanted: Range) -> Buffer | Exception:
    start = max(0, file.size + wanted.start) if wanted.start < 0 else wanted.start
    stop = file.size if wanted.stop is None else wanted.stop
    if not 0 <= start <= stop <= file.size:
        return UnreadableError(f"{wanted.name}: {file.size} bytes, {stop} expected")
    data = np.empty(stop - start, np.uint8)
    try:
        file.read_into(start, data)
        file.check_unchanged()
    except READ_ERRORS as error:
        raise_if_of_the_process(error)
        return error
    return data


class RemoteFiles:
    """Objects of a store below one URL; the ranges of a call are fetched concurrently."""

    def __init__(self, url: str) -> None:
        self._fs, self._root = fsspec.core.url_to_fs(url)

    def read(self, ranges: Sequence[Range]) -> Iterator[Buffer | Exception]:
        """See `Files`."""
        paths = [f"{self._root}/{wanted.name}" for wanted in ranges]
        found = self._fs.cat_ranges(
            paths,
            [wanted.start for wanted in ranges],
            [wanted.stop for wanted in ranges],
            on_error="return",
        )
        for wanted, data in zip(ranges, found, strict=True):
            yield _whole(wanted, data)


def _whole(wanted: Range, data: Any) -> Buffer | Exception:
    if isinstance(data, FileNotFoundError | PermissionError | IsADirectoryError):
        return data
    if isinstance(data, BaseException):
        raise data
    if wanted.stop is not None and wanted.start >= 0 and len(data) < wanted.stop - wanted.start:
        return UnreadableError(f"{wanted.name}: ends inside its pixels")
    return data


def files_of(root: str) -> Files:
    """The files below a folder or a URL."""
    return RemoteFiles(root) if is_remote(root) else LocalFiles(root)
