"""In which order a grader sees the objects: the same for the same seed and name, on any machine.

Each object is sorted by a hash of seed, grader and id (BLAKE2b), so that the order depends on
nothing else: not on the order in which ids are given, and objects that come later fall between the
others without moving them against each other.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Mapping, Sequence

from lenspipe.errors import InputError
from lenspipe.serve.grades.event import ObjectId


def shuffled(ids: Iterable[ObjectId], seed: int, grader: str) -> list[ObjectId]:
    """A permutation of distinct ids."""
    return sorted(ids, key=lambda each: (_draw(seed, "order", grader, each), _written(each)))


def by_score(scores: Mapping[ObjectId, float]) -> list[ObjectId]:
    """Ids by falling score, equal scores by id; NaN comes last."""

    def key(each: ObjectId) -> tuple[bool, float, bool, ObjectId]:
        score = scores[each]
        missing = math.isnan(score)
        return (missing, 0.0 if missing else -score, isinstance(each, str), each)

    return sorted(scores, key=key)


def wanted_hidden(shown: int, rate: float) -> int:
    """How many hidden objects among `shown` others are a fraction `rate` of what a grader sees.
    InputError where `rate` is not within 0..0.5."""
    if not 0.0 <= rate <= 0.5:
        raise InputError("hidden rate", "a fraction within 0..0.5", rate)
    return round(rate / (1.0 - rate) * shown)


def chosen_hidden(hidden: Iterable[ObjectId], shown: int, rate: float, seed: int) -> list[ObjectId]:
    """Hidden objects that are mixed into `shown` others: a fraction `rate` of what a grader then
    sees, or all where there are not so many.

    The same for all graders, so that they are judged, and agree or not, on the same objects.
    InputError where `rate` is not within 0..0.5.
    """
    wanted = wanted_hidden(shown, rate)
    drawn = sorted(hidden, key=lambda each: (_draw(seed, "choice", "", each), _written(each)))
    return drawn[:wanted]


def mixed(
    order: Sequence[ObjectId], hidden: Iterable[ObjectId], seed: int, grader: str
) -> list[ObjectId]:
    """`order` with each hidden object at a random place, the rest in the order that it has. An
    object that `order` holds stays where it is."""
    held = set(order)
    drawn = [(_draw(seed, "place", grader, each), each) for each in hidden if each not in held]
    gaps: dict[int, list[ObjectId]] = {}
    for draw, each in sorted(drawn, key=lambda pair: (pair[0], _written(pair[1]))):
        gaps.setdefault(draw * (len(order) + 1) >> 64, []).append(each)
    found: list[ObjectId] = []
    for k in range(len(order) + 1):
        found += gaps.get(k, ())
        found += order[k : k + 1]
    return found


def order_for(
    grader: str,
    seed: int,
    scores: Mapping[ObjectId, float],
    *,
    blind: bool = True,
    hidden: Iterable[ObjectId] = (),
    hidden_rate: float = 0.05,
) -> list[ObjectId]:
    """What a grader sees, first to last: all objects of `scores` once, and hidden ones among them.

    blind: in an order of the grader's own; else the highest score first. hidden: training objects
    whose truth is known. hidden_rate: fraction of all shown that are hidden ones.
    """
    order = shuffled(scores, seed, grader) if blind else by_score(scores)
    # One that is an object of the run as well is seen anyway, and needs no place.
    extra = [each for each in hidden if each not in scores]
    return mixed(order, chosen_hidden(extra, len(order), hidden_rate, seed), seed, grader)


def _draw(seed: int, purpose: str, grader: str, each: ObjectId) -> int:
    """64 bits; lengths stand before the texts, so that no two inputs are written alike."""
    parts = (str(seed), purpose, grader, _written(each))
    data = b"".join(b"%d:%b" % (len(part.encode()), part.encode()) for part in parts)
    return int.from_bytes(hashlib.blake2b(data, digest_size=8).digest())


def _written(each: ObjectId) -> str:
    """An id as text; 7 and "7" are two."""
    return f"{'i' if isinstance(each, int) else 't'}{each}"
