"""Grades from files, CSV or Parquet: lists made elsewhere, and events of another store."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from pyarrow import csv

from lenspipe.errors import InputError
from lenspipe.serve.grades.event import Event, NewEvent, ObjectId, parse_object_id
from lenspipe.serve.grades.scheme import Scheme
from lenspipe.serve.grades.state import states_of
from lenspipe.serve.grades.store import GradeStore, Hidden

FIELD = "FILE"
# Columns that a file of events has and a list of grades has not.
_OF_EVENTS = ("key", "kind", "grader")
_TRUE, _FALSE = ("true", "1", "yes", "lens"), ("false", "0", "no", "other")


@dataclass(frozen=True)
class Imported:
    """What came of a file. stored, repeated: events that are new, and that were there before.
    overruled: of the repeated, grades and comments that do not stand any more. object_ids: of the
    objects that they are about."""

    stored: int
    repeated: int
    overruled: int
    object_ids: frozenset[ObjectId]


def read_rows(path: str | Path) -> pa.Table:
    """Rows of a file; every column of a CSV file as text. InputError where it cannot be read."""
    file = Path(path)
    if not file.is_file():
        raise InputError(FIELD, "a CSV or Parquet file", f"nothing at {file}")
    try:
        if file.suffix.lower() == ".parquet":
            return pq.read_table(file)
        if file.suffix.lower() == ".csv":
            return _read_csv(file)
    except (pa.ArrowException, OSError) as error:
        raise InputError(FIELD, "a readable file", error) from error
    raise InputError(FIELD, "a name that ends in .csv or .parquet", file.name)


def import_rows(
    store: GradeStore, rows: pa.Table, grader: str | None = None, integers: bool | None = None
) -> Imported:
    """Store what a table says: all rows or, where one is wrong, none.

    A table with columns `key`, `kind` and `grader` is of events (table `grade_events`); they keep
    key and time, so that a second import adds nothing. `grader` then chooses one person's. Any
    other table has `object_id`, and `grade`, `comment` or both; they are `grader`'s, or of its
    column `grader`. The key of each is made from what it says and its `time_utc` or, without one,
    from its place among all that the table says: the same table counts once, however often it is
    imported, and another one that says a grade again, after a third said otherwise, counts. Rows
    with neither grade nor comment are passed over. integers: whether the
    survey's ids are integers; None: if all in the table are. InputError names row and column.
    """
    if "object_id" not in rows.column_names:
        raise InputError(FIELD, "a column `object_id`", ", ".join(rows.column_names) or "none")
    if integers is None:
        integers = _all_integers(rows["object_id"].to_pylist())
    given = rows.to_pylist()
    if all(name in rows.column_names for name in _OF_EVENTS):
        new = list(_events(given, grader, integers))
    else:
        new = list(_grades(given, rows.column_names, grader, integers, store.scheme()))
    done = store.append_all(new)
    known = [each.event for each in done if each.repeated]
    ids = frozenset(each.object_id for each in new if each.object_id is not None)
    return Imported(len(done) - len(known), len(known), _overruled(store, known), ids)


def _overruled(store: GradeStore, known: Sequence[Event]) -> int:
    """How many of these grades and comments do not stand any more."""
    states = states_of(store.events()) if known else {}
    return sum(
        event.grade != states[event.grader].grades.get(event.subject)
        if event.kind == "grade"
        else (event.comment or None) != states[event.grader].comments.get(event.subject)
        for event in known
        if event.kind in ("grade", "comment")
    )


def hidden_of(rows: pa.Table, integers: bool | None = None) -> list[Hidden]:
    """Hidden training objects from a table with `object_id`, `is_lens` and perhaps `kind`.

    integers: whether the survey's ids are integers: ids that are none then stay text, as those of
    simulations beside known lenses of the survey. None: if all in the table are.
    """
    for name in ("object_id", "is_lens"):
        if name not in rows.column_names:
            raise InputError(FIELD, f"a column `{name}`", ", ".join(rows.column_names) or "none")
    if integers is None:
        integers = _all_integers(rows["object_id"].to_pylist())
    found = list[Hidden]()
    for number, row in enumerate(rows.to_pylist(), 1):
        where = f"{FIELD}: row {number}"
        text = str(row["is_lens"]).strip().lower()
        if text not in (*_TRUE, *_FALSE):
            raise InputError(f"{where}: is_lens", "true or false", repr(row["is_lens"]))
        number_too = integers and _all_integers([row["object_id"]])
        with _at(where):
            each = _id(row["object_id"], number_too, where)
            found.append(Hidden(each, text in _TRUE, _text(row.get("kind"))))
    return found


def _grades(
    rows: Sequence[dict[str, Any]],
    columns: Sequence[str],
    grader: str | None,
    integers: bool,
    scheme: Scheme,
) -> Iterator[NewEvent]:
    if not {"grade", "comment"} & set(columns):
        raise InputError(FIELD, "a column `grade` or `comment`", ", ".join(columns))
    if grader is None and "grader" not in columns:
        raise InputError("--grader", "whose grades these are, or a column `grader`", "neither")
    table = hashlib.sha256(json.dumps(rows, default=str, sort_keys=True).encode()).hexdigest()
    for number, row in enumerate(rows, 1):
        where = f"{FIELD}: row {number}"
        who = grader if grader is not None else _text(row["grader"])
        time = _time(row.get("time_utc"), where)
        when = f"{table} {number}" if time is None else time.isoformat()
        for kind in ("grade", "comment"):
            said = row.get(kind)
            if said is None or said == "":
                continue
            each = _id(row["object_id"], integers, where)
            if kind == "grade":
                scheme.require(str(said), f"{where}: grade")
            with _at(where):
                yield NewEvent(
                    key=_key(who, kind, each, str(said), when),
                    grader=who,
                    kind="grade" if kind == "grade" else "comment",
                    object_id=each,
                    grade=str(said) if kind == "grade" else None,
                    comment=str(said) if kind == "comment" else None,
                    time_utc=time,
                )


def _events(
    rows: Sequence[dict[str, Any]], grader: str | None, integers: bool
) -> Iterator[NewEvent]:
    for number, row in enumerate(rows, 1):
        where = f"{FIELD}: row {number}"
        if grader is not None and row["grader"] != grader:
            continue
        seconds = row.get("seconds_looked")
        with _at(where):
            yield NewEvent(
                key=_text(row["key"]),
                grader=_text(row["grader"]),
                kind=row["kind"],
                object_id=_id_of_event(row, integers, where),
                grade=row.get("grade"),
                comment=row.get("comment"),
                view=row.get("view"),
                seconds_looked=None if seconds is None else _number(seconds, where),
                time_utc=_time(row.get("time_utc"), where),
            )


def _id_of_event(row: dict[str, Any], integers: bool, where: str) -> ObjectId | None:
    """The id; one that stands only as text is of the kind that the survey's are not."""
    if row["object_id"] is not None:
        return _id(row["object_id"], integers, where)
    text = row.get("object_text")
    return None if text is None else _id(text, not integers, where)


def _id(value: object, integers: bool, where: str) -> ObjectId:
    return parse_object_id(_text(value), integers, f"{where}: object_id")


def _text(value: object) -> str:
    return "" if value is None else str(value)


def _number(value: object, where: str) -> float:
    try:
        return float(str(value))
    except ValueError as error:
        raise InputError(f"{where}: seconds_looked", "a number", repr(value)) from error


def _time(value: object, where: str) -> datetime | None:
    if value is None or isinstance(value, datetime):
        return value
    try:
        return datetime.fromisoformat(str(value))
    except ValueError as error:
        raise InputError(f"{where}: time_utc", "a time (ISO 8601)", repr(value)) from error


def _key(who: str, kind: str, each: ObjectId, said: str, when: str) -> str:
    written = "\0".join([who, kind, type(each).__name__, str(each), said, when])
    return f"import-{hashlib.sha256(written.encode()).hexdigest()[:32]}"


@contextmanager
def _at(where: str) -> Iterator[None]:
    """Errors inside say the row too."""
    try:
        yield
    except InputError as error:
        if error.field.startswith(where):
            raise
        raise InputError(f"{where}: {error.field}", error.expected, error.found) from error


def _read_csv(file: Path) -> pa.Table:
    parse = csv.ParseOptions(newlines_in_values=True)
    with csv.open_csv(file, parse_options=parse) as reader:
        names = reader.schema.names
    options = csv.ConvertOptions(
        column_types=dict.fromkeys(names, pa.string()),
        null_values=[""],
        strings_can_be_null=True,
        quoted_strings_can_be_null=False,  # "" is an empty comment, which removes one
    )
    return csv.read_csv(file, parse_options=parse, convert_options=options)


def _all_integers(values: Sequence[object]) -> bool:
    """Whether all ids are integers, or texts of integers."""
    texts = [str(value) for value in values if value is not None]
    return bool(texts) and all(t.removeprefix("-").isdecimal() and str(int(t)) == t for t in texts)
