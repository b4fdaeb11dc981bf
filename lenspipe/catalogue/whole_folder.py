"""A folder of a run that becomes visible whole: made aside, then put in place."""

from __future__ import annotations

import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from lenspipe.storage.store import Store

_ASIDE = ".tmp-"
# Files up to here are uploaded side by side. A larger one fills the line by itself, and its parts
# are held in memory.
_SMALL_BYTES = 8 << 20


@contextmanager
def replacing(store: Store, name: str, last: str) -> Iterator[Path]:
    """A local folder to fill; it replaces folder `name` of the store when the block ends well.

    Locally it is made beside the old one, synced and renamed. On an object store, which renames
    nothing, its files are uploaded, many at once, and `last` (the file without which a reader finds
    nothing there) is removed first and comes when all others are there. What `store.before_change`
    raises (the lock was lost) ends that at once.
    """
    if store.is_local:
        discard_unfinished(store, name)
        aside = store.local_path(f"{name}{_ASIDE}{uuid.uuid4().hex[:12]}")
        aside.mkdir(parents=True)
        try:
            yield aside
            store.before_change()
            _put_in_place(aside, store.local_path(name))
        except BaseException:
            shutil.rmtree(aside, ignore_errors=True)
            raise
        return
    with TemporaryDirectory(prefix="lenspipe-") as scratch:
        aside = Path(scratch, "folder")
        aside.mkdir()
        yield aside
        remove(store, name, last)
        _upload(aside, store, name, last)


def remove(store: Store, name: str, last: str) -> None:
    """Remove folder `name`, the file that readers look for first; none there is no error."""
    store.delete(f"{name}/{last}")
    store.delete_folder(name)


def discard_unfinished(store: Store, name: str) -> None:
    """Remove what a killed writer of local folder `name` left aside."""
    target = store.local_path(name)
    if target.parent.is_dir():
        for left in target.parent.glob(f"{target.name}{_ASIDE}*"):
            shutil.rmtree(left, ignore_errors=True)


def _put_in_place(aside: Path, target: Path) -> None:
    for path in [aside, *aside.rglob("*")]:
        _sync(path)
    old = target.with_name(f"{target.name}{_ASIDE}{uuid.uuid4().hex[:12]}")
    if target.exists():
        target.replace(old)
    aside.replace(target)
    _sync(target.parent)
    shutil.rmtree(old, ignore_errors=True)


def _upload(folder: Path, store: Store, name: str, last: str) -> None:
    def put(file: str) -> None:
        store.fs.put_file(str(folder / file), store.path(f"{name}/{file}"))

    sizes = {
        path.relative_to(folder).as_posix(): path.stat().st_size
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }
    sizes.pop(last)
    store.side_by_side(put, [file for file, size in sizes.items() if size <= _SMALL_BYTES])
    for file in [*(file for file, size in sizes.items() if size > _SMALL_BYTES), last]:
        store.before_change()
        put(file)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
