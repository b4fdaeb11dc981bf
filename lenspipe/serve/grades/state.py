"""What holds for one grader now: the fold of that grader's events."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from lenspipe.serve.grades.event import Event, ObjectId


@dataclass
class GraderState:
    """Grades, flags and comments of one grader after all events so far.

    Events are applied in the order of their ids. standing: events that an undo can still take back,
    the last one at the end, each with what held before. undone: what each undo took back, by the
    undo's id. seen_up_to: the objects of all `seen`; which of them is the furthest, an order says.
    last_object: the object of the last event that names one, undone or not. last_id: of the last
    event that was applied.
    """

    grader: str
    grades: dict[ObjectId, str] = field(default_factory=dict)
    flagged: set[ObjectId] = field(default_factory=set)
    comments: dict[ObjectId, str] = field(default_factory=dict)
    seen_up_to: set[ObjectId] = field(default_factory=set)
    last_object: ObjectId | None = None
    last_id: int = 0
    standing: list[tuple[Event, str | bool | None]] = field(default_factory=list)
    undone: dict[int, Event] = field(default_factory=dict)

    @property
    def undoable(self) -> Event | None:
        """What an undo would take back; None where nothing is left."""
        return self.standing[-1][0] if self.standing else None

    def apply(self, event: Event) -> None:
        """Go on by one event; another grader's is passed over, and so is one of before."""
        if event.grader != self.grader or event.id <= self.last_id:
            return
        self.last_id = event.id
        if event.kind == "undo":
            if self.standing:
                taken, before = self.standing.pop()
                self._put(taken, before)
                self.undone[event.id] = taken
            return
        self.last_object = event.subject
        if event.kind == "seen":
            self.seen_up_to.add(event.subject)
            return
        self.standing.append((event, self._now(event)))
        self._put(event, _given(event))

    def _now(self, event: Event) -> str | bool | None:
        """What holds of what an event changes."""
        if event.kind == "grade":
            return self.grades.get(event.subject)
        if event.kind == "comment":
            return self.comments.get(event.subject)
        return event.subject in self.flagged

    def _put(self, event: Event, value: str | bool | None) -> None:
        """Make `value` hold of what an event changes."""
        if isinstance(value, bool):
            (self.flagged.add if value else self.flagged.discard)(event.subject)
            return
        texts = self.grades if event.kind == "grade" else self.comments
        if value:
            texts[event.subject] = value
        else:
            texts.pop(event.subject, None)


def _given(event: Event) -> str | bool | None:
    if event.kind in ("flag", "unflag"):
        return event.kind == "flag"
    return event.grade if event.kind == "grade" else event.comment


def states_of(events: Iterable[Event]) -> dict[str, GraderState]:
    """State of every grader that has events, by name."""
    found: dict[str, GraderState] = {}
    for event in events:
        if event.grader not in found:
            found[event.grader] = GraderState(event.grader)
        found[event.grader].apply(event)
    return found


@dataclass(frozen=True)
class Progress:
    """How far a grader is in an order of objects.

    objects, graded, flagged: how many of them. flagged_left: how many of the flagged are not
    graded. seen: how many the mosaic has shown, up to the furthest page that was turned.
    next_ungraded, next_flagged, next_unseen: where to go on, one by one, with the flagged ones
    alone, or in the mosaic: places in the order; `objects` where nothing is left. stopped_at: place
    of the object that the last event was about; None where there is none.
    """

    objects: int
    graded: int
    flagged: int
    flagged_left: int
    seen: int
    next_ungraded: int
    next_flagged: int
    next_unseen: int
    stopped_at: int | None


def progress(state: GraderState, order: Sequence[ObjectId]) -> Progress:
    """How far a grader is in `order`, the ids as that grader is shown them."""
    place = {object_id: k for k, object_id in enumerate(order)}
    n = len(order)
    seen = max((place.get(object_id, -1) for object_id in state.seen_up_to), default=-1)
    left = [k for k, object_id in enumerate(order) if object_id not in state.grades]
    flagged_left = [k for k in left if order[k] in state.flagged]
    return Progress(
        objects=n,
        graded=sum(object_id in place for object_id in state.grades),
        flagged=sum(object_id in place for object_id in state.flagged),
        flagged_left=len(flagged_left),
        seen=seen + 1,
        next_ungraded=left[0] if left else n,
        next_flagged=flagged_left[0] if flagged_left else n,
        next_unseen=seen + 1,
        stopped_at=None if state.last_object is None else place.get(state.last_object),
    )
