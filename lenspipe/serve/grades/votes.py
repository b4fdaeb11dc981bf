"""Grades as arrays: who gave what to which object."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
from jaxtyping import Int64

from lenspipe.serve.grades.event import ObjectId
from lenspipe.serve.grades.scheme import Scheme
from lenspipe.serve.grades.state import GraderState

NONE = -1  # in place of a grade where a grader gave none


@dataclass(frozen=True)
class Votes:
    """codes: place of each grade in the scheme, `NONE` where there is none; a row for each object,
    a column for each grader who graded any."""

    object_ids: tuple[ObjectId, ...]
    graders: tuple[str, ...]
    codes: Int64[np.ndarray, "n g"]


def votes_of(
    states: Mapping[str, GraderState], scheme: Scheme, more: Iterable[ObjectId] = ()
) -> Votes:
    """The grades that stand, objects and graders sorted. more: objects that get a row though nobody
    graded them."""
    graders = tuple(sorted(name for name, state in states.items() if state.grades))
    found = {each for name in graders for each in states[name].grades} | set(more)
    ids = tuple(sorted(found, key=lambda each: (isinstance(each, str), each)))
    row = {each: k for k, each in enumerate(ids)}
    codes = np.full((len(ids), len(graders)), NONE, np.int64)
    for column, name in enumerate(graders):
        for each, grade in states[name].grades.items():
            codes[row[each], column] = scheme.codes[grade]
    return Votes(ids, graders, codes)


def counts_of(codes: Int64[np.ndarray, "n g"], k: int) -> Int64[np.ndarray, "n k"]:
    """How many graders gave each of `k` grades to each object."""
    return np.stack([(codes == code).sum(axis=1) for code in range(k)], axis=1).astype(np.int64)
