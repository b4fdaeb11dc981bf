"""Files of pixels as a listing tells them: names, sizes, times or ETags; what changed since."""

from __future__ import annotations

import hashlib
import os
import zlib
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime
from functools import cached_property
from itertools import chain, islice
from typing import NamedTuple

from lenspipe.redaction import redact

_BLOCK_FILES = 4096


class PixelFile(NamedTuple):
    """path: absolute path or URL. time_ns: of the last change, since 1970, 0 where it is not told.
    tag: the store's ETag, empty where there is none."""

    path: str
    size_bytes: int
    time_ns: int
    tag: str

    @property
    def content(self) -> tuple[int, str | int]:
        """What is another one when the file is: size, and ETag or else time."""
        return self.size_bytes, self.tag or self.time_ns


class Listing:
    """The files of a band, sorted by path, each once. A run keeps it to its end, however many
    files there are, so they are held packed: about 20 bytes each."""

    def __init__(self, files: Iterable[PixelFile] = ()) -> None:
        """files: sorted by path."""
        self._blocks: list[bytes] = []
        self.bytes = 0
        self.count = 0
        for block in _blocks_of(files):
            self._blocks.append(_packed(block))
            self.bytes += sum(file.size_bytes for file in block)
            self.count += len(block)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Listing) and self._blocks == other._blocks

    def __hash__(self) -> int:
        return hash(tuple(self._blocks))

    @property
    def files(self) -> Iterator[PixelFile]:
        """The files, a few thousand of them unpacked at a time."""
        return chain.from_iterable(map(_unpacked, self._blocks))

    @cached_property
    def sha256(self) -> str:
        """SHA-256 over name (below the folder that all share), size and ETag or else time."""
        digest, folder, first = hashlib.sha256(), len(self._folder()), True
        for block in map(_unpacked, self._blocks):
            lines = "\n".join(
                f"{file.path[folder:]}|{file.size_bytes}|{file.tag or file.time_ns}"
                for file in block
            )
            # A URL that is signed anew names the same file.
            told = redact(lines) if "://" in block[0].path else lines
            digest.update(f"{'' if first else chr(10)}{told}".encode("utf-8", "surrogateescape"))
            first = False
        return digest.hexdigest()

    def names_sha256(self, count: int) -> str:
        """SHA-256 over the whole names of the first `count` files, in their order."""
        names = redact("\n".join(file.path for file in islice(self.files, count)))
        return hashlib.sha256(names.encode("utf-8", "surrogateescape")).hexdigest()

    @property
    def newest(self) -> str:
        """Name and time of the file that changed last; empty where no file tells its time."""
        last = max(self.files, key=lambda file: file.time_ns, default=None)
        if last is None or not last.time_ns:
            return ""
        return f"{last.path.rpartition('/')[2]} of {_shown(last.time_ns)}"

    def differences(self, now: Listing) -> Iterator[str]:
        """In words: each file that is gone, was changed or came since this listing was made."""
        if self == now:
            return
        before, after = ({f.path: f for f in listing.files} for listing in (self, now))
        for path in sorted({*before, *after}):
            old, new = before.get(path), after.get(path)
            if new is None:
                yield f"{path} gone"
            elif old is None:
                yield f"{path} new"
            elif old.content != new.content:
                when = f" at {_shown(new.time_ns)}" if new.time_ns else ""
                yield f"{path} changed{when}"

    def _folder(self) -> str:
        """The folder that all files share, with its slash."""
        if not self._blocks:
            return ""
        ends = [_unpacked(self._blocks[0])[0].path, _unpacked(self._blocks[-1])[-1].path]
        shared = os.path.commonprefix(ends)  # noqa: RUF071 - cut at a slash below; URLs stay whole
        return shared[: shared.rfind("/") + 1]


def _blocks_of(files: Iterable[PixelFile]) -> Iterator[list[PixelFile]]:
    iterator = iter(files)
    while block := list(islice(iterator, _BLOCK_FILES)):
        yield block


def _packed(files: Sequence[PixelFile]) -> bytes:
    text = "\0".join(str(field) for file in files for field in file)  # no path or tag has a NUL
    return zlib.compress(text.encode("utf-8", "surrogateescape"), 1)


def _unpacked(block: bytes) -> list[PixelFile]:
    fields = zlib.decompress(block).decode("utf-8", "surrogateescape").split("\0")
    rows = zip(*(fields[first::4] for first in range(4)), strict=True)
    return [PixelFile(path, int(size), int(time), tag) for path, size, time, tag in rows]


def _shown(time_ns: int) -> str:
    return datetime.fromtimestamp(time_ns / 1e9, UTC).isoformat(timespec="milliseconds")
