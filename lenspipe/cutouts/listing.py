"""Files of pixels as a listing tells them: names, sizes, times or ETags; what changed since."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from typing import NamedTuple

from lenspipe.redaction import redact


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


@dataclass(frozen=True)
class Listing:
    """The files of a band, sorted by path, each once."""

    files: tuple[PixelFile, ...] = ()

    @property
    def bytes(self) -> int:
        """Bytes of all files together."""
        return sum(file.size_bytes for file in self.files)

    @cached_property
    def sha256(self) -> str:
        """SHA-256 over name (below the folder that all share), size and ETag or else time."""
        lines = "\n".join(
            f"{name}|{file.size_bytes}|{file.tag or file.time_ns}"
            for name, file in zip(self._names(), self.files, strict=True)
        )
        # A URL that is signed anew names the same file.
        told = redact(lines) if self.files and "://" in self.files[0].path else lines
        return hashlib.sha256(told.encode("utf-8", "surrogateescape")).hexdigest()

    @property
    def newest(self) -> str:
        """Name and time of the file that changed last; empty where no file tells its time."""
        last = max(self.files, key=lambda file: file.time_ns, default=None)
        if last is None or not last.time_ns:
            return ""
        return f"{last.path.rpartition('/')[2]} of {_shown(last.time_ns)}"

    def differences(self, now: Listing) -> Iterator[str]:
        """In words: each file that is gone, was changed or came since this listing was made."""
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

    def _names(self) -> Iterator[str]:
        if not self.files:
            return
        ends = [self.files[0].path, self.files[-1].path]
        shared = os.path.commonprefix(ends)  # noqa: RUF071 - cut at a slash below; URLs stay whole
        folder = shared.rfind("/") + 1
        for file in self.files:
            yield file.path[folder:]


def _shown(time_ns: int) -> str:
    return datetime.fromtimestamp(time_ns / 1e9, UTC).isoformat(timespec="milliseconds")
