"""Where a run's grades are: in its folder, or where somebody says."""

from __future__ import annotations

from lenspipe.errors import InputError
from lenspipe.redaction import redact
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


def found_store(run: RunDirectory, where: str | None) -> GradeStore | None:
    """The store at `where` or the run's own, for reading; None where the run has none of its own.
    InputError where nothing is at `where`."""
    if where is None and not _has_own(run):
        return None
    return store_of(run, where, "--grades", writable=False)


def without_grades(run: RunDirectory, where: str | None) -> str | None:
    """Where grades were looked for and are not; None where they are."""
    if where is not None or _has_own(run):
        return None
    place = f"{redact(run.url)}/{GRADES}"
    return place if run.store.is_local else f"{place} (a run by URL has none of its own)"


def _has_own(run: RunDirectory) -> bool:
    return run.store.is_local and run.store.local_path(GRADES).exists()
