"""Where a run's grades are: in its folder, or where somebody says."""

from __future__ import annotations

from lenspipe.errors import InputError
from lenspipe.run_directory import GRADES, RunDirectory
from lenspipe.serve.grades.store import GradeStore, open_store


def store_of(
    run: RunDirectory, where: str | None, field: str, *, writable: bool = True
) -> GradeStore:
    """The store at `where`, a SQLite file or a `postgresql://` URL, or RUN/grades.sqlite.

    InputError, at `field` (the option that names another), where a run on an object store has none
    of its own; see `open_store` for the rest.
    """
    if where is not None:
        return open_store(where, writable=writable)
    if not run.store.is_local:
        raise InputError(field, "a SQLite file or a postgresql:// URL for a run by URL", "none")
    return open_store(run.store.local_path(GRADES), writable=writable)
