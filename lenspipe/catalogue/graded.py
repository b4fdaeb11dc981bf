"""The tables `grades` and `grade_events` of a run, from its own grades or those at a place."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

import numpy as np
import pyarrow as pa
from jaxtyping import Float64, Int64

from lenspipe.catalogue import scores
from lenspipe.catalogue.candidates import array_of, open_candidates
from lenspipe.contracts import id_field
from lenspipe.run_directory import RunDirectory
from lenspipe.serve.grades.combine import combine, ordered_prior
from lenspipe.serve.grades.consensus import consensus
from lenspipe.serve.grades.event import Event, ObjectId
from lenspipe.serve.grades.place import found_store
from lenspipe.serve.grades.state import GraderState, states_of
from lenspipe.serve.grades.store import GradeStore, Hidden
from lenspipe.serve.grades.votes import votes_of


def _field(name: str, kind: pa.DataType, description: str, unit: str = "") -> pa.Field:
    return pa.field(name, kind, metadata={"unit": unit, "description": description})


def grades_schema(id_type: pa.DataType) -> pa.Schema:
    """Columns of `grades`: a row for each object of the run that anybody graded, flagged or
    commented on."""
    return pa.schema(
        [
            id_field(id_type),
            _field("grade", pa.string(), "the best grade that more than half of the votes reach"),
            _field("votes", pa.int32(), "how many persons graded it"),
            _field("grade_mean", pa.float64(), "mean of the values of the votes"),
            _field("agreement", pa.float64(), "fraction of the votes that are the consensus grade"),
            _field(
                "probability_combined",
                pa.float64(),
                "probability of a lens from the network's score and all votes; none where the "
                "object is no candidate",
            ),
            _field("flagged_by", pa.int32(), "how many persons flagged it in the mosaic"),
            _field("comments", pa.string(), "comments, each after its writer's name"),
            _field("training", pa.bool_(), "whether its truth was known: a hidden training object"),
            _field("last_event_utc", pa.string(), "when anything was last said of it (ISO 8601)"),
        ]
    )


def events_schema(id_type: pa.DataType) -> pa.Schema:
    """Columns of `grade_events`: all that happened, in its order."""
    return pa.schema(
        [
            _field("id", pa.int64(), "rises in the order in which events were stored"),
            _field("time_utc", pa.string(), "when (ISO 8601)"),
            _field("grader", pa.string(), "who"),
            id_field(id_type),
            _field("object_text", pa.string(), "the id as text, of objects of other surveys too"),
            _field("kind", pa.string(), "grade, flag, unflag, comment, seen or undo"),
            _field("grade", pa.string(), "grade that was given"),
            _field("comment", pa.string(), "what was written"),
            _field("view", pa.string(), "mosaic or single"),
            _field("seconds_looked", pa.float64(), "how long it was on the screen", "s"),
            _field("key", pa.string(), "the client's name of the event"),
        ]
    )


def open_grades(run: RunDirectory, where: str | None = None) -> pa.Table | None:
    """Table `grades`; None where nobody graded yet. where: a SQLite file or postgresql:// URL in
    place of RUN/grades.sqlite; InputError where nothing is there."""
    store = found_store(run, where)
    if store is None:
        return None
    with store:
        return grades_table(store, probabilities(run), id_type_of(run))


def open_grade_events(run: RunDirectory, where: str | None = None) -> pa.Table | None:
    """Table `grade_events`; as `open_grades`."""
    store = found_store(run, where)
    if store is None:
        return None
    with store:
        return events_table(store.events(), id_type_of(run))


def id_type_of(run: RunDirectory) -> pa.DataType | None:
    """Type of the survey's ids; None where the run has no sources yet."""
    group = open_candidates(run)
    if group is not None and "object_id" in group:
        kind = array_of(group, "object_id").dtype
        return pa.string() if kind.kind in "OUT" else pa.from_numpy_dtype(kind)
    parts = run.part_names("scores", run.commits("score"))
    if not parts:
        return None
    found: pa.DataType = scores.schema(run, parts[:1]).field("object_id").type
    return found


def probabilities(run: RunDirectory) -> dict[ObjectId, float]:
    """Calibrated probability of each candidate."""
    group = open_candidates(run)
    if group is None:
        return {}
    ids, values = (np.asarray(array_of(group, name)[:]) for name in ("object_id", "probability"))
    return dict(zip(ids.tolist(), values.tolist(), strict=True))


def grades_table(
    store: GradeStore, network: Mapping[ObjectId, float], id_type: pa.DataType | None
) -> pa.Table:
    """Consensus and combined probability of each object.

    network: calibrated probabilities of the candidates. id_type: of the survey's ids; those of the
    other kind, integers or text, are no objects of the run: they count as training objects and have
    no row. None: text unless all ids are integers.
    """
    scheme, events, hidden = store.scheme(), store.events(), store.hidden()
    states = states_of(events)
    votes = votes_of(states, scheme, _touched(states))
    agreed = consensus(votes.codes, scheme.array())
    found = combine(
        votes.codes,
        np.array([network.get(each, np.nan) for each in votes.object_ids], float),
        _truth(votes.object_ids, hidden),
        ordered_prior(scheme.array()),
    ).probability
    id_type = id_type or _type_of(votes.object_ids)
    training, last = {each.object_id for each in hidden}, _last(events)
    rows = [k for k, each in enumerate(votes.object_ids) if _is_of(each, id_type)]
    ids = [votes.object_ids[k] for k in rows]
    names = (*scheme.names, None)  # a code of -1 is no grade
    columns: list[Any] = [
        ids,
        [names[code] for code in agreed.code[rows]],
        agreed.votes[rows],
        _or_null(agreed.mean[rows]),
        _or_null(agreed.agreeing[rows]),
        _or_null(np.where([each in network for each in ids], found[rows], np.nan)),
        [sum(each in state.flagged for state in states.values()) for each in ids],
        [_comments(states, each) for each in ids],
        [each in training for each in ids],
        [last[each] for each in ids],
    ]
    return _table(columns, grades_schema(id_type))


def events_table(events: Sequence[Event], id_type: pa.DataType | None) -> pa.Table:
    """All events as a table; see `grades_table` for id_type."""
    given = [event.object_id for event in events if event.object_id is not None]
    id_type = id_type or _type_of(given)
    columns: list[Any] = [
        [event.id for event in events],
        [_iso(event.time_utc) for event in events],
        [event.grader for event in events],
        [
            e.object_id if e.object_id is not None and _is_of(e.object_id, id_type) else None
            for e in events
        ],
        [None if event.object_id is None else str(event.object_id) for event in events],
        [event.kind for event in events],
        [event.grade for event in events],
        [event.comment for event in events],
        [event.view for event in events],
        [event.seconds_looked for event in events],
        [event.key for event in events],
    ]
    return _table(columns, events_schema(id_type))


def _touched(states: Mapping[str, GraderState]) -> set[ObjectId]:
    """Objects that are flagged or commented on."""
    return {each for state in states.values() for each in (*state.flagged, *state.comments)}


def _truth(ids: Sequence[ObjectId], hidden: Sequence[Hidden]) -> Int64[np.ndarray, " n"]:
    known = {each.object_id: int(each.is_lens) for each in hidden}
    return np.array([known.get(each, -1) for each in ids], np.int64)


def _last(events: Sequence[Event]) -> dict[ObjectId, str]:
    return {e.object_id: _iso(e.time_utc) for e in events if e.object_id is not None}


def _comments(states: Mapping[str, GraderState], each: ObjectId) -> str | None:
    said = [
        f"{name}: {s.comments[each]}" for name, s in sorted(states.items()) if each in s.comments
    ]
    return "; ".join(said) or None


def _is_of(each: ObjectId, id_type: pa.DataType) -> bool:
    return isinstance(each, int) == bool(pa.types.is_integer(id_type))


def _type_of(ids: Sequence[ObjectId]) -> pa.DataType:
    integers = bool(ids) and all(isinstance(each, int) for each in ids)
    return pa.int64() if integers else pa.string()


def _or_null(values: Float64[np.ndarray, " n"]) -> pa.Array:
    return pa.array(values, pa.float64(), from_pandas=True)


def _table(columns: Sequence[Any], schema: pa.Schema) -> pa.Table:
    arrays = [
        column if isinstance(column, pa.Array) else pa.array(column, field.type)
        for column, field in zip(columns, schema, strict=True)
    ]
    return pa.table(arrays, schema=schema)


def _iso(time: datetime) -> str:
    return time.isoformat(timespec="microseconds").replace("+00:00", "Z")
