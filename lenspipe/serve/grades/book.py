"""What a service asks: keep an event, and what holds now for each grader."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from copy import copy

from lenspipe.serve.grades.event import NewEvent
from lenspipe.serve.grades.scheme import Scheme
from lenspipe.serve.grades.state import GraderState
from lenspipe.serve.grades.store import GradeStore, Stored


class GradeBook:
    """A store with the state of every grader in memory. Events that other processes stored are
    taken up whenever it is asked. Safe in several threads."""

    def __init__(self, store: GradeStore, scheme: Scheme | None = None) -> None:
        """scheme: to grade by from now on; default: the store's own."""
        self.store = store
        if scheme is not None:
            store.set_scheme(scheme)
        self._lock = threading.Lock()
        self._states: dict[str, GraderState] = {}
        self._last_id = 0

    @property
    def scheme(self) -> Scheme:
        """The grades that there are."""
        return self.store.scheme()

    def record(self, new: NewEvent) -> Stored:
        """Keep an event; it is on disk when this returns. InputError where its grade is not of the
        scheme, or its key was used for something else."""
        return self.record_all([new])[0]

    def record_all(self, new: Sequence[NewEvent]) -> list[Stored]:
        """Keep events in their order, all or none of them; see `record`."""
        return self.store.append_all(new)

    def state(self, grader: str) -> GraderState:
        """What holds for a grader now; the caller's own copy."""
        with self._lock:
            self._refresh()
            found = self._states.get(grader, GraderState(grader))
            return _copied(found)

    def graders(self) -> list[str]:
        """Names of all who did anything."""
        with self._lock:
            self._refresh()
            return sorted(self._states)

    def states(self) -> dict[str, GraderState]:
        """What holds for each grader; copies."""
        with self._lock:
            self._refresh()
            return {name: _copied(state) for name, state in self._states.items()}

    def _refresh(self) -> None:
        for event in self.store.events(after=self._last_id):
            self._states.setdefault(event.grader, GraderState(event.grader)).apply(event)
            self._last_id = event.id


def _copied(state: GraderState) -> GraderState:
    made = copy(state)
    made.grades, made.comments = dict(state.grades), dict(state.comments)
    made.flagged, made.standing = set(state.flagged), list(state.standing)
    made.seen_up_to, made.undone = set(state.seen_up_to), dict(state.undone)
    return made
