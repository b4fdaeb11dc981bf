"""The tables of a run, by name: what a query sees and an export writes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.dataset as pads
import zarr

from lenspipe.catalogue import scores
from lenspipe.catalogue.candidates import array_of, kept_columns, open_candidates
from lenspipe.catalogue.graded import id_type_of, open_grade_events, open_grades
from lenspipe.catalogue.hats import scored_files
from lenspipe.catalogue.known import KNOWN_LENS, KnownAt, read_known
from lenspipe.catalogue.survey_sources import SOURCES, open_sources
from lenspipe.contracts import failure_schema, id_field
from lenspipe.errors import CorruptRunError, InputError
from lenspipe.run_directory import RunDirectory, Stage
from lenspipe.serve.grades.place import without_grades

# A dataset reads only the columns and row groups that are asked for; a table is in memory.
Relation: TypeAlias = "pads.Dataset | pa.Table"

_RANK = pa.field(
    "rank", pa.int64(), metadata={"unit": "", "description": "place by score; the best has 1"}
)


def open_table(
    run: RunDirectory, name: str, field: str = "table", grades: str | None = None
) -> Relation:
    """A table of the run, or the survey's own `sources`; InputError where there is no such table or
    the run has none yet. grades: where they are, see `open_grades`."""
    if name == SOURCES:
        return open_sources(run, f"{field} {SOURCES}")
    if name not in TABLES:
        raise InputError(field, f"one of {', '.join([*TABLES, SOURCES])}", repr(name))
    found = _opened(run, name, grades)
    if found is None:
        raise InputError(field, f"a run with {name}", f"{run.url}: {lacking(run, name)}")
    return found


def lacking(run: RunDirectory, name: str) -> str:
    """That the run has no table of that name, and where grades were looked for."""
    if name in _GRADED:
        place = without_grades(run, None)
        return f"the run has no {name}: none at {place}; --grades names another place"
    return f"the run has no {name}"


def open_tables(
    run: RunDirectory, text: str | None = None, grades: str | None = None
) -> dict[str, Relation]:
    """All tables that the run has; the survey's `sources`, which cost a listing, are not opened.

    text: of a query; tables that are made when they are opened are left out where it does not name
    them. grades: where they are, see `open_grades`.
    """
    wanted = (n for n in TABLES if text is None or n not in _GRADED or n in text.lower())
    found = {name: _opened(run, name, grades) for name in wanted}
    return {name: relation for name, relation in found.items() if relation is not None}


def _open_scores(run: RunDirectory) -> Relation | None:
    parts = run.part_names("scores", run.commits("score"))
    if not parts:
        return None
    files = scored_files(run, parts)
    return _dataset(run, files, scores.schema(run, files))


def _open_failures(run: RunDirectory) -> Relation | None:
    stages: tuple[Stage, ...] = ("select", "score")
    parts = [n for stage in stages for n in run.part_names("failures", run.commits(stage))]
    if parts:
        return _dataset(run, parts, scores.schema(run, parts))
    # A run in which nothing failed has the table too: it is empty.
    id_type = id_type_of(run)
    return None if id_type is None else failure_schema(id_type).empty_table()


def _open_candidates(run: RunDirectory) -> Relation | None:
    group = open_candidates(run)
    if group is None:
        return None
    names = [*_CANDIDATE_COLUMNS, *kept_columns(group)]
    columns = [_candidate_column(group, name) for name in names]
    n = len(columns[0][1])
    fields = [_RANK, *(field for field, _ in columns)]
    arrays = [pa.array(np.arange(1, n + 1)), *(values for _, values in columns)]
    table = pa.table(arrays, schema=pa.schema(fields))
    return table.append_column(KNOWN_LENS, pa.array(known_at(run, table), pa.string()))


def known_at(run: RunDirectory, table: pa.Table, column: str = "name") -> list[str | None]:
    """For each row with `ra` and `dec` the run's known lenses there; see `known.KnownAt`."""
    known = read_known(run)
    if known is None:
        return [None] * table.num_rows
    ra_deg, dec_deg = (table[name].to_numpy() for name in ("ra", "dec"))
    return KnownAt(known.table, known.radius_arcsec, column).names(ra_deg, dec_deg)


def _open_known(run: RunDirectory) -> Relation | None:
    known = read_known(run)
    return None if known is None else known.table


_CANDIDATE_COLUMNS = ("object_id", "ra", "dec", "score", "probability", "flags", "has_stamp")


def _candidate_column(group: zarr.Group, name: str) -> tuple[pa.Field, pa.Array]:
    try:
        array = array_of(group, name)
    except KeyError as error:
        raise CorruptRunError(
            f"candidates.zarr/{name}: lost: lenspipe run makes it anew"
        ) from error
    values: Any = array[:]
    column = (
        pa.array(values.tolist(), pa.string()) if values.dtype.kind in "OUT" else pa.array(values)
    )
    if name == "object_id":
        return id_field(column.type), column
    about = {key: str(array.attrs.get(key, "")) for key in ("unit", "description")}
    return pa.field(name, column.type, metadata=about), column


def _dataset(run: RunDirectory, names: Any, schema: pa.Schema) -> pads.Dataset:
    paths = [run.store.path(name) for name in names]
    filesystem = run.store.arrow_filesystem()
    try:
        return pads.dataset(paths, schema=schema, format="parquet", filesystem=filesystem)
    except FileNotFoundError as error:
        raise CorruptRunError(f"{error.args[0]}: lenspipe verify says what else is lost") from error


def _opened(run: RunDirectory, name: str, grades: str | None) -> Relation | None:
    return _GRADED[name](run, grades) if name in _GRADED else _OF_RUN[name](run)


_OF_RUN: dict[str, Callable[[RunDirectory], Relation | None]] = {
    "scores": _open_scores,
    "candidates": _open_candidates,
    "failures": _open_failures,
    "known_lenses": _open_known,
}
# Made when they are opened, from wherever grades are.
_GRADED: dict[str, Callable[[RunDirectory, str | None], Relation | None]] = {
    "grades": open_grades,
    "grade_events": open_grade_events,
}
TABLES = ("scores", "candidates", "failures", *_GRADED, "known_lenses")
