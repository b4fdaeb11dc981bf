"""Standard error that may break (a closed pipe, a full disk) without breaking what is told of."""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from typing import Any, TextIO, cast

# A file that was closed says so by ValueError.
_BROKEN = (OSError, ValueError)


class _Forgiving:
    """A stream of text that drops what it cannot write."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        with suppress(*_BROKEN):
            self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        with suppress(*_BROKEN):
            self._stream.flush()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def forgiving(stream: TextIO) -> TextIO:
    """The stream, dropping what it cannot write."""
    return cast("TextIO", _Forgiving(stream))


def forget_broken() -> None:
    """Before the process ends: what standard error never took would change the exit status."""
    try:
        sys.stderr.flush()
    except _BROKEN:
        with suppress(*_BROKEN):
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, sys.stderr.fileno())
            os.close(nowhere)
            sys.stderr.flush()
