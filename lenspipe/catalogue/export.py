"""A run's tables as files: the candidates in the columns that published lens catalogues have."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import pyarrow as pa
from jaxtyping import Float64

from lenspipe.catalogue.formats import require_known, write_rows
from lenspipe.catalogue.graded import open_grades
from lenspipe.catalogue.tables import Relation, known_at, open_table
from lenspipe.run_directory import RunDirectory

FIELD = "FILE"


def _field(name: str, kind: pa.DataType, description: str) -> pa.Field:
    return pa.field(name, kind, metadata={"unit": "", "description": description})


_NAME = _field("name", pa.string(), "position as a name, digits truncated (IAU convention)")
_GRADE = _field(
    "grade", pa.string(), "consensus grade of those who looked; none: not yet looked at"
)
_VOTES = _field("votes", pa.int32(), "how many persons graded it")
_REFERENCES = _field("references", pa.string(), "who published the known lens at this position")


def export(
    run: RunDirectory,
    out: str,
    table: str = "candidates",
    acronym: str = "",
    grades: str | None = None,
) -> int:
    """Write a table of the run to a file by its suffix; returns how many rows.

    acronym: of the survey, before the names of candidates. grades: a SQLite file or postgresql://
    URL in place of RUN/grades.sqlite. InputError where the table or the format is none, or the
    format cannot hold the rows.
    """
    require_known(out, FIELD)
    relation = open_table(run, table, "--table", grades)
    if table == "candidates":
        references = known_at(run, relation), known_at(run, relation, "reference")
        relation = publishable(relation, acronym, open_grades(run, grades), _cited(*references))
    counted = _Counted(relation)
    write_rows(counted.reader, out, table, FIELD)
    return counted.rows


def _cited(names: list[str | None], references: list[str | None]) -> list[str | None]:
    """Who published the known lenses at a position; their names where the list does not say."""
    return [reference or name for name, reference in zip(names, references, strict=True)]


def publishable(
    candidates: pa.Table,
    acronym: str = "",
    grades: pa.Table | None = None,
    references: Sequence[str | None] | None = None,
) -> pa.Table:
    """Candidates as lens catalogues publish them: name, position, score, probability, grade, votes,
    references first, then the run's own columns. grades: the run's table of that name; references:
    one text a row. Without them, those columns are null."""
    n = candidates.num_rows
    graded, votes = _grades_of(candidates["object_id"], grades)
    cited = [None] * n if references is None else list(references)
    names = iau_names(candidates["ra"].to_numpy(), candidates["dec"].to_numpy(), acronym)
    own = {field.name: (field, candidates[field.name]) for field in candidates.schema}
    added = {
        field.name: (field, pa.chunked_array([values], field.type))
        for field, values in (
            (_NAME, pa.array(names, pa.string())),
            (_GRADE, graded),
            (_VOTES, votes),
            (_REFERENCES, pa.array(cited, pa.string())),
        )
    }
    first = ("name", "ra", "dec", "score", "probability", "grade", "votes", "references")
    columns = {**own, **added}
    ordered = [*first, *(name for name in own if name not in first)]
    schema = pa.schema([columns[name][0] for name in ordered])
    return pa.table([columns[name][1] for name in ordered], schema=schema)


def _grades_of(ids: pa.ChunkedArray, grades: pa.Table | None) -> tuple[pa.Array, pa.Array]:
    """Grade and votes of each id; an id that nobody graded has 0 votes."""
    if grades is None:
        return pa.nulls(len(ids), pa.string()), pa.nulls(len(ids), pa.int32())
    columns = (grades[name].to_pylist() for name in ("object_id", "grade", "votes"))
    known = {each: (grade, votes) for each, grade, votes in zip(*columns, strict=True)}
    found = [known.get(each, (None, 0)) for each in ids.to_pylist()]
    return (
        pa.array([grade for grade, _ in found], pa.string()),
        pa.array([votes for _, votes in found], pa.int32()),
    )


def iau_names(
    ra_deg: Float64[np.ndarray, " n"], dec_deg: Float64[np.ndarray, " n"], acronym: str = ""
) -> list[str]:
    """Names `ACRONYM JHHMMSS.ss+DDMMSS.s`: positions truncated, not rounded, as the IAU asks
    (https://cdsweb.u-strasbg.fr/Dic/iau-spec.html)."""
    prefix = f"{acronym} " if acronym else ""
    return [f"{prefix}{_iau_name(ra, dec)}" for ra, dec in zip(ra_deg, dec_deg, strict=True)]


def _iau_name(ra_deg: float, dec_deg: float) -> str:
    # What is less than a microarcsecond below a digit is the digit: 150.1° is 10h00m24.00s.
    ra = math.floor((ra_deg % 360.0) / 15.0 * 360_000 + 1e-5) % (24 * 360_000)
    dec = math.floor(abs(dec_deg) * 36_000 + 1e-5)
    sign = "-" if dec_deg < 0 else "+"
    hours, minutes, seconds = ra // 360_000, ra // 6_000 % 60, ra % 6_000
    degrees, arcminutes, arcseconds = dec // 36_000, dec // 600 % 60, dec % 600
    return (
        f"J{hours:02d}{minutes:02d}{seconds // 100:02d}.{seconds % 100:02d}"
        f"{sign}{degrees:02d}{arcminutes:02d}{arcseconds // 10:02d}.{arcseconds % 10}"
    )


class _Counted:
    """A relation's rows as a stream that counts them."""

    def __init__(self, relation: Relation) -> None:
        self.rows = 0
        batches = self._count(relation.to_batches())
        self.reader = pa.RecordBatchReader.from_batches(relation.schema, batches)

    def _count(self, batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for batch in batches:
            self.rows += batch.num_rows
            yield batch
