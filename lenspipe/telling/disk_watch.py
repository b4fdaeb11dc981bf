"""How much of the driver's disks is free, looked at beside the run: a disk that hangs holds up
nobody who asks for the metrics."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import Event, Thread

INTERVAL_S = 15.0


@contextmanager
def watching_disks(
    folders: Mapping[str, Path],
    tell: Callable[[str, int, int], None],
    interval_s: float = INTERVAL_S,
) -> Iterator[None]:
    """Tell (place, free bytes, size in bytes) of each folder's disk now and every interval_s.

    Size is what is free to us and what is used: what only root may fill counts for neither. A disk
    that cannot be looked at keeps what was told of it before.
    """
    ended = Event()

    def look() -> None:
        while True:
            for place, folder in folders.items():
                with suppress(OSError):
                    found = shutil.disk_usage(folder)
                    tell(place, found.free, found.free + found.used)
            if ended.wait(interval_s):
                return

    thread = Thread(target=look, name="disk-watch", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join(1.0)
