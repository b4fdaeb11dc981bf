from __future__ import annotations

import math
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lenspipe.errors import InputError
from lenspipe.serve.grades.event import ObjectId
from lenspipe.serve.grades.order import by_score, chosen_hidden, order_for, shuffled

IDS = st.lists(st.one_of(st.integers(-5, 50), st.text("ab1", min_size=1, max_size=3)), unique=True)


@settings(max_examples=60, deadline=None)
@given(
    ids=IDS,
    hidden=IDS,
    seed=st.integers(0, 3),
    blind=st.booleans(),
    rate=st.floats(0, 0.5),
)
def test_each_object_is_seen_once(
    ids: list[ObjectId], hidden: list[ObjectId], seed: int, blind: bool, rate: float
) -> None:
    scores = {each: float(hash(each) % 7) for each in ids}
    order = order_for("ana", seed, scores, blind=blind, hidden=hidden, hidden_rate=rate)
    extra = Counter(order) - Counter(ids)
    assert Counter(order) == Counter(ids) + extra
    assert set(extra) <= set(hidden) - set(ids)
    assert max(Counter(order).values(), default=1) == 1
    wanted = round(rate / (1 - rate) * len(ids))
    assert len(extra) == min(wanted, len(set(hidden) - set(ids)))
    again = dict(reversed(scores.items()))
    assert order == order_for(
        "ana", seed, again, blind=blind, hidden=hidden[::-1], hidden_rate=rate
    )
    plain = by_score(scores) if blind is False else shuffled(ids, seed, "ana")
    assert [each for each in order if each in scores] == plain


def test_the_order_is_this_one_on_every_machine() -> None:
    """Frozen: another order would lead people through what they graded again."""
    assert shuffled([1, 2, 3, "1", "two", -4], 7, "ana") == EXPECTED
    assert shuffled([1, 2, 3, "1", "two", -4], 7, "bo") != EXPECTED
    assert shuffled([1, 2, 3, "1", "two", -4], 8, "ana") != EXPECTED


EXPECTED: list[ObjectId] = [-4, "1", "two", 1, 2, 3]


def test_new_objects_leave_the_old_ones_in_their_order() -> None:
    old, new = range(0, 400, 2), range(400)
    kept = [each for each in shuffled(new, 1, "ana") if each in set(old)]
    assert kept == shuffled(old, 1, "ana")


def test_hidden_objects_lie_anywhere_and_are_the_same_for_all() -> None:
    scores: dict[ObjectId, float] = {k: -float(k) for k in range(1900)}
    hidden: list[ObjectId] = [f"h{k}" for k in range(300)]
    orders = [order_for(who, 5, scores, hidden=hidden, hidden_rate=0.05) for who in ("ana", "bo")]
    places = [[k for k, each in enumerate(o) if isinstance(each, str)] for o in orders]
    assert [len(each) for each in places] == [100, 100]  # 100 of 2000
    assert {e for e in orders[0] if isinstance(e, str)} == {
        e for e in orders[1] if isinstance(e, str)
    }
    assert places[0] != places[1]
    quarters = Counter(place // 500 for place in places[0])
    assert all(12 <= quarters[k] <= 40 for k in range(4)), "25 expected, within 4 sigma"


def test_scores_fall_and_what_has_none_comes_last() -> None:
    assert by_score({3: 1.0, "a": 1.0, 1: 1.0, 9: math.nan, 2: 5.0}) == [2, 1, 3, "a", 9]
    with pytest.raises(InputError, match=r"^hidden rate: expected a fraction within 0..0.5"):
        chosen_hidden([1], 10, 0.6, 0)
