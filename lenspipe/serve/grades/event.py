"""One thing that a grader did. Events are never changed and never deleted."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Literal, cast, get_args

from lenspipe.errors import InputError

ObjectId = int | str
Kind = Literal["grade", "flag", "unflag", "comment", "seen", "undo"]
View = Literal["mosaic", "single"]
KINDS: tuple[Kind, ...] = get_args(Kind)
VIEWS: tuple[View, ...] = get_args(View)
LONGEST_NAME = 100  # characters of a grader, a key, a grade
LONGEST_ID = 1000
LONGEST_COMMENT = 10_000


@dataclass(frozen=True)
class Done:
    """What a grader did.

    key: made by the client, once for each thing done and sent again with it, so that a resend is
    the same event. object_id: integer or text, as in the survey; None for `undo` alone. kind:
    `grade` gives the object a grade in place of the one before; `flag` and `unflag` put it among
    those to look at and take it out; `comment` replaces the comment (an empty one removes it);
    `seen` says that the mosaic was looked at up to this object in the grader's own order; `undo`
    takes back the grader's last grade, flag, unflag or comment that still stands. seconds_looked:
    how long the object was on the screen.
    """

    key: str
    grader: str
    kind: Kind
    object_id: ObjectId | None = None
    grade: str | None = None
    comment: str | None = None
    view: View | None = None
    seconds_looked: float | None = None

    def content(self) -> tuple[object, ...]:
        """What a resend repeats: all but the time."""
        known = (self.grader, self.kind, self.object_id, self.grade, self.comment)
        return (*known, self.view, self.seconds_looked)

    @property
    def subject(self) -> ObjectId:
        """The object that it is about; ValueError for an undo, which is about none."""
        if self.object_id is None:
            raise ValueError(f"{self.kind} is about no object")
        return self.object_id


@dataclass(frozen=True)
class NewEvent(Done):
    """What a client asks to be kept; one that exists is valid. time_utc: None for the time at which
    it is stored. InputError names the field that is wrong."""

    time_utc: datetime | None = None

    def __post_init__(self) -> None:
        check_name("key", self.key)
        check_name("grader", self.grader)
        if self.kind not in KINDS:
            raise InputError("kind", f"one of {', '.join(KINDS)}", repr(self.kind))
        if self.view is not None and self.view not in VIEWS:
            raise InputError("view", f"one of {', '.join(VIEWS)}, or none", repr(self.view))
        _check_object(self.kind, self.object_id)
        _check_given("grade", self.grade, self.kind == "grade", self.kind)
        _check_given("comment", self.comment, self.kind == "comment", self.kind)
        if self.grade is not None:
            check_name("grade", self.grade)
        if self.comment is not None:
            _check_text("comment", self.comment, LONGEST_COMMENT)
        _check_seconds(self.seconds_looked)
        _check_time(self.time_utc)


@dataclass(frozen=True)
class Event(Done):
    """An event as it is stored. id: rises in the order in which events were stored. time_utc: when,
    to the microsecond."""

    id: int = field(kw_only=True)
    time_utc: datetime = field(kw_only=True)


def check_name(field: str, value: object) -> None:
    """InputError where a value is no short printable text with something in it."""
    expected = f"1 to {LONGEST_NAME} printable characters"
    if not isinstance(value, str):
        raise InputError(field, expected, repr(value))
    if not 0 < len(value) <= LONGEST_NAME or not value.isprintable() or value != value.strip():
        raise InputError(field, f"{expected} without blanks at the ends", repr(value[:200]))


def check_object_id(value: object, field: str = "object_id") -> None:
    """InputError where a value is no id: an integer of 64 bits, or a text that is not empty."""
    if isinstance(value, int) and not isinstance(value, bool):
        if not -(2**63) <= value < 2**64:
            raise InputError(field, "an integer of 64 bits", value)
        return
    if not isinstance(value, str) or not value:
        raise InputError(field, "an integer, or text that is not empty", repr(value))
    _check_text(field, value, LONGEST_ID)


def parse_object_id(text: str, integers: bool, field: str = "object_id") -> ObjectId:
    """An id from a URL or a file, of a survey whose ids are integers or text. InputError where it
    is none; an integer has one way to be written."""
    if not integers:
        check_object_id(text, field)
        return text
    try:
        found = int(text)
    except ValueError:
        found = None
    if found is None or str(found) != text:
        raise InputError(field, "an integer", repr(text[:200]))
    check_object_id(found, field)
    return found


def microseconds(time: datetime) -> int:
    """Microseconds since 1970, UTC."""
    since = time - datetime(1970, 1, 1, tzinfo=UTC)
    return (since.days * 86_400 + since.seconds) * 1_000_000 + since.microseconds


def _check_object(kind: Kind, object_id: object) -> None:
    if kind == "undo":
        if object_id is not None:
            raise InputError("object_id", "none for an undo", repr(object_id))
        return
    check_object_id(object_id)


def _check_given(field: str, value: object, wanted: bool, kind: Kind) -> None:
    if wanted and value is None:
        raise InputError(field, f"one for kind {kind}", "none")
    if not wanted and value is not None:
        raise InputError(field, f"none for kind {kind}", repr(value))


def _check_text(field: str, value: object, longest: int) -> None:
    if not isinstance(value, str) or len(value) > longest:
        raise InputError(field, f"text of at most {longest:,} characters", type(value).__name__)
    # What no database, JSON or UTF-8 can hold.
    if any(character == "\0" or "\ud800" <= character <= "\udfff" for character in value):
        raise InputError(field, "text without NUL and half characters", repr(value[:200]))


def _check_seconds(value: object) -> None:
    if value is None:
        return
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if not (number and 0 <= cast(float, value) < math.inf):
        raise InputError("seconds_looked", "seconds of at least 0, or none", repr(value))


def _check_time(value: datetime | None) -> None:
    if value is not None and (not isinstance(value, datetime) or value.tzinfo is None):
        raise InputError("time_utc", "a time with its zone", repr(value))
