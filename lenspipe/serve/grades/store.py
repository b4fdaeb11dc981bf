"""The append-only store of grading events, and of what they are understood by."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from lenspipe.errors import CorruptRunError, InputError
from lenspipe.serve.grades.databases import Database, Execute
from lenspipe.serve.grades.databases.sqlite import SqliteDatabase
from lenspipe.serve.grades.event import (
    Event,
    NewEvent,
    ObjectId,
    check_name,
    check_object_id,
    microseconds,
)

if TYPE_CHECKING:
    from lenspipe.serve.grades.scheme import Scheme

_COLUMNS = (
    "id, time_us, key, grader, kind, object_id, object_is_integer, grade, comment, shown_as, "
    "seconds_looked"
)
_POSTGRES = ("postgresql://", "postgres://")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True)
class Stored:
    """An event that is on disk. repeated: it was there before; this was a resend of it."""

    event: Event
    repeated: bool


@dataclass(frozen=True)
class Hidden:
    """A training object that is mixed in among the others. is_lens: the truth. kind: what it is
    (`known_lens`, `simulated_lens`, `spiral` …)."""

    object_id: ObjectId
    is_lens: bool
    kind: str = ""

    def __post_init__(self) -> None:
        check_object_id(self.object_id)
        if self.kind:
            check_name("kind", self.kind)


class GradeStore:
    """Events, the scheme and the hidden objects of one run. Rows are only ever added.

    Several threads may use one store, and several processes have the same one open.
    """

    def __init__(self, database: Database, clock: Callable[[], datetime] | None = None) -> None:
        self._database = database
        self._clock = clock or _now

    def __enter__(self) -> GradeStore:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the database."""
        self._database.close()

    def append(self, new: NewEvent) -> Stored:
        """Keep an event. It is on disk when this returns. InputError where its grade is not of the
        scheme, or the grader used its key for something else; StoppedError where the database
        cannot be written."""
        return self.append_all([new])[0]

    def append_all(self, new: Sequence[NewEvent]) -> list[Stored]:
        """Keep events in their order, all or none of them; see `append`."""
        time_us = microseconds(self._clock())

        def work(execute: Execute) -> list[Stored]:
            last = int(execute("SELECT coalesce(max(id), 0) FROM lenspipe_grade_events")[0][0])
            scheme = _scheme(execute) if any(each.grade is not None for each in new) else None
            stored = list[Stored]()
            for each in new:
                if scheme is not None and each.grade is not None:
                    scheme.require(each.grade)
                stored.append(_append(execute, each, last + 1, time_us))
                last += not stored[-1].repeated
            return stored

        return self._database.write(work) if new else []

    def events(self, after: int = 0, grader: str | None = None) -> list[Event]:
        """Events with an id above `after`, of one grader or of all, by id."""
        whose = "" if grader is None else " AND grader = ?"
        rows = self._database.read(
            f"SELECT {_COLUMNS} FROM lenspipe_grade_events WHERE id > ?{whose} ORDER BY id",  # noqa: S608
            (after,) if grader is None else (after, grader),
        )
        return [_event(row) for row in rows]

    def count(self) -> int:
        """How many events there are."""
        return int(self._database.read("SELECT count(*) FROM lenspipe_grade_events")[0][0])

    def scheme(self) -> Scheme:
        """The grades that there are; the default ones where none were set."""
        return _scheme(self._database.read)

    def set_scheme(self, scheme: Scheme) -> None:
        """Grade by this scheme from now on. InputError where a grade that was given is not in it:
        what it meant would be lost."""
        text, time_us = scheme.as_json(), microseconds(self._clock())

        def work(execute: Execute) -> None:
            used = execute(
                "SELECT DISTINCT grade FROM lenspipe_grade_events WHERE grade IS NOT NULL"
            )
            lacking = sorted(str(name) for (name,) in used if name not in scheme.codes)
            if lacking:
                raise InputError("scheme", f"grade {lacking[0]!r}, which was given", "none")
            if _last_scheme(execute) != text:
                execute(
                    "INSERT INTO lenspipe_grade_schemes "
                    "SELECT coalesce(max(id), 0) + 1, CAST(? AS BIGINT), ? "
                    "FROM lenspipe_grade_schemes",
                    (time_us, text),
                )

        self._database.write(work)

    def hidden(self) -> list[Hidden]:
        """The hidden training objects, by id."""
        rows = self._database.read(
            "SELECT object_id, object_is_integer, is_lens, kind FROM lenspipe_grade_hidden "
            "ORDER BY object_is_integer, object_id"
        )
        return [
            Hidden(_object_id(text, number), bool(lens), kind) for text, number, lens, kind in rows
        ]

    def add_hidden(self, objects: Iterable[Hidden]) -> int:
        """Add hidden training objects; how many of them are new. InputError where one is known with
        another truth."""
        wanted = list(objects)

        def work(execute: Execute) -> int:
            return sum(_add_hidden(execute, each) for each in wanted)

        return self._database.write(work) if wanted else 0


def open_store(where: str | Path, *, writable: bool = True) -> GradeStore:
    """Grades in a SQLite file, made where it is not there, or at a `postgresql://` URL.

    InputError where they cannot be there; StoppedError where the database does not answer.
    """
    text = str(where)
    if text.startswith(_POSTGRES):
        from lenspipe.serve.grades.databases.postgres import PostgresDatabase

        return GradeStore(PostgresDatabase(text, writable))
    if "://" in text:
        raise InputError("grades", "a file on a local disk, or a postgresql:// URL", text)
    return GradeStore(SqliteDatabase(Path(where), writable))


def _append(execute: Execute, new: NewEvent, number: int, time_us: int) -> Stored:
    rows = execute(
        f"SELECT {_COLUMNS} FROM lenspipe_grade_events WHERE grader = ? AND key = ?",  # noqa: S608
        (new.grader, new.key),
    )
    if rows:
        before = _event(rows[0])
        if before.content() != new.content():
            found = f"event {before.id}, which is something else"
            raise InputError("key", "one that the grader did not use before", found)
        return Stored(before, repeated=True)
    told = time_us if new.time_utc is None else microseconds(new.time_utc)
    number_id = None if new.object_id is None else int(isinstance(new.object_id, int))
    row = (
        number,
        told,
        new.key,
        new.grader,
        new.kind,
        None if new.object_id is None else str(new.object_id),
        number_id,
        new.grade,
        new.comment,
        new.view,
        None if new.seconds_looked is None else float(new.seconds_looked),
    )
    marks = ", ".join("?" * len(row))
    execute(f"INSERT INTO lenspipe_grade_events ({_COLUMNS}) VALUES ({marks})", row)  # noqa: S608
    return Stored(_event(row), repeated=False)


def _event(row: Sequence[Any]) -> Event:
    number, time_us, key, grader, kind, text, is_integer, grade, comment, view, seconds = row
    return Event(
        id=int(number),
        time_utc=_EPOCH + timedelta(microseconds=int(time_us)),
        key=key,
        grader=grader,
        kind=kind,
        object_id=None if text is None else _object_id(text, is_integer),
        grade=grade,
        comment=comment,
        view=view,
        seconds_looked=seconds,
    )


def _object_id(text: str, is_integer: object) -> ObjectId:
    return int(text) if is_integer else text


def _last_scheme(execute: Execute) -> str | None:
    rows = execute("SELECT scheme FROM lenspipe_grade_schemes ORDER BY id DESC LIMIT 1")
    return str(rows[0][0]) if rows else None


def _scheme(execute: Execute) -> Scheme:
    from lenspipe.serve.grades.scheme import DEFAULT

    text = _last_scheme(execute)
    return DEFAULT if text is None else _parsed(text)


@lru_cache(maxsize=8)
def _parsed(text: str) -> Scheme:
    from lenspipe.serve.grades.scheme import parse_scheme

    try:
        return parse_scheme(json.loads(text))
    except (ValueError, InputError) as error:
        raise CorruptRunError(f"grades: scheme: {error}") from error


def _add_hidden(execute: Execute, each: Hidden) -> bool:
    key = (str(each.object_id), int(isinstance(each.object_id, int)))
    rows = execute(
        "SELECT is_lens FROM lenspipe_grade_hidden WHERE object_id = ? AND object_is_integer = ?",
        key,
    )
    if not rows:
        execute(
            "INSERT INTO lenspipe_grade_hidden VALUES (?, ?, ?, ?)",
            (*key, int(each.is_lens), each.kind),
        )
        return True
    if bool(rows[0][0]) != each.is_lens:
        known = "a lens" if rows[0][0] else "no lens"
        raise InputError(
            f"hidden object {each.object_id}", f"the truth as before, {known}", "other"
        )
    return False


def _now() -> datetime:
    return datetime.now(UTC)
