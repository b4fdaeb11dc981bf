from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lenspipe.serve.grades.event import Event, Kind, ObjectId
from lenspipe.serve.grades.state import GraderState, progress, states_of

NOW = datetime(2026, 1, 1, tzinfo=UTC)
IDS = st.sampled_from([1, 2, "1", "J2"])


def event(number: int, who: str, kind: str, object_id: ObjectId | None, text: str = "A") -> Event:
    return Event(
        f"k{number}",
        who,
        kind,  # type: ignore[arg-type]
        None if kind == "undo" else object_id,
        grade=text if kind == "grade" else None,
        comment=text if kind == "comment" else None,
        id=number,
        time_utc=NOW,
    )


STEPS = st.lists(
    st.tuples(
        st.sampled_from(["ana", "bo"]),
        st.sampled_from(["grade", "grade", "flag", "unflag", "comment", "seen", "undo", "undo"]),
        IDS,
        st.sampled_from(["A", "B", "X"]),
    ),
    max_size=30,
)


def naive(events: list[Event], who: str) -> tuple[object, ...]:
    """What stands after every undo was matched with what it takes back, played from the start."""
    standing: list[Event] = []
    seen: set[ObjectId | None] = set()
    for each in events:
        if each.grader != who:
            continue
        if each.kind == "undo":
            standing = standing[:-1]
        elif each.kind == "seen":
            seen.add(each.object_id)
        else:
            standing.append(each)
    grades: dict[ObjectId | None, str | None] = {}
    comments: dict[ObjectId | None, str | None] = {}
    flagged: set[ObjectId | None] = set()
    for each in standing:
        if each.kind == "grade":
            grades[each.object_id] = each.grade
        elif each.kind == "comment":
            comments[each.object_id] = each.comment
        else:
            flagged -= {each.object_id}
            flagged |= {each.object_id} if each.kind == "flag" else set()
    return grades, comments, flagged, seen, standing[-1] if standing else None


@settings(max_examples=150, deadline=None)
@given(steps=STEPS)
def test_any_sequence_folds_as_it_would_be_played(
    steps: list[tuple[str, str, ObjectId, str]],
) -> None:
    events = [event(k + 1, *step) for k, step in enumerate(steps)]
    found = states_of(events)
    for who in ("ana", "bo"):
        state = found.get(who, GraderState(who))
        told = (state.grades, state.comments, state.flagged, state.seen_up_to, state.undoable)
        assert told == naive(events, who)


@settings(max_examples=50, deadline=None)
@given(steps=STEPS)
def test_undo_takes_back_the_last_and_nothing_else(
    steps: list[tuple[str, str, ObjectId, str]],
) -> None:
    state = GraderState("ana")
    for k, (_, kind, object_id, text) in enumerate(steps):
        state.apply(event(k + 1, "ana", kind, object_id, text))
    before = (dict(state.grades), set(state.flagged), dict(state.comments), state.undoable)
    for k, kind in enumerate(("grade", "flag", "comment", "unflag")):
        state.apply(event(100 + 2 * k, "ana", kind, 1, "C"))
        state.apply(event(101 + 2 * k, "ana", "undo", None))
        assert (state.grades, state.flagged, state.comments, state.undoable) == before


def test_an_empty_comment_removes_it_and_an_event_counts_once() -> None:
    state = GraderState("ana")
    said = event(1, "ana", "comment", 7, "ring?")
    state.apply(said)
    state.apply(event(2, "ana", "comment", 7, ""))
    assert state.comments == {}
    state.apply(event(3, "ana", "undo", None))
    assert state.comments == {7: "ring?"}
    state.apply(said)
    assert len(state.standing) == 1


def test_progress_says_where_to_go_on() -> None:
    order: list[ObjectId] = [5, 3, "a", 9]
    state = GraderState("ana")
    assert progress(state, order).next_ungraded == progress(state, order).next_unseen == 0
    assert progress(state, order).stopped_at is None
    done: list[tuple[Kind, ObjectId]] = [("grade", 5), ("grade", "a"), ("flag", 9), ("seen", 3)]
    for k, (kind, each) in enumerate(done):
        state.apply(event(k + 1, "ana", kind, each))
    state.apply(event(9, "ana", "grade", 1000))  # not in the order: of an older list
    found = progress(state, order)
    assert (found.objects, found.graded, found.flagged) == (4, 2, 1)
    assert (found.next_ungraded, found.seen, found.next_unseen) == (1, 2, 2)
    assert found.stopped_at is None
    assert (found.flagged_left, found.next_flagged) == (1, 3)
    assert progress(state, []).next_ungraded == 0
    # Who turns back has not seen less.
    state.apply(event(10, "ana", "seen", 5))
    assert progress(state, order).seen == 2
    state.apply(event(11, "ana", "grade", 9))
    assert (progress(state, order).flagged_left, progress(state, order).next_flagged) == (0, 4)


@pytest.mark.parametrize("kind", ["undo", "seen"])
def test_undo_of_nothing_is_nothing(kind: str) -> None:
    state = GraderState("ana")
    state.apply(event(1, "ana", kind, 7))
    state.apply(event(2, "ana", "undo", None))
    assert (state.grades, state.undoable) == ({}, None)
