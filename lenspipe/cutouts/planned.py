"""Opening a reader of pixels that were there when the run began."""

from __future__ import annotations

from lenspipe import cutouts
from lenspipe.cutouts.base import Reader, ReaderOptions
from lenspipe.cutouts.faults import require_there
from lenspipe.cutouts.files.paths import constant_folder


def open_planned(options: ReaderOptions, base: str) -> Reader:
    """As `open_reader`. FileNotFoundError where the folder of the pixels is away: what the reader
    would list there is not what was planned."""
    pattern = str(getattr(options, "tiles", None) or getattr(options, "path", ""))
    require_there(constant_folder(pattern, base))
    return cutouts.open_reader(options, base)
