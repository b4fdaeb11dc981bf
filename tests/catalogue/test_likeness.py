"""Which candidates are seen alike."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lenspipe.catalogue.likeness import Likeness


def test_rows_of_one_kind_find_one_another_whatever_the_scale_of_a_feature() -> None:
    rng = np.random.default_rng(1)
    kind = np.repeat([0, 1, 2], 20)
    told = rng.normal(size=(3, 6))[kind] + rng.normal(0, 0.05, (60, 6))
    features = told * np.array([1, 100, 0.01, 1, 1e4, 1])
    alike = Likeness(features.astype(np.float32), [("a", 4), ("b", 2)])
    for row in range(60):
        assert set(kind[alike.nearest(row, 10)]) == {kind[row]}


def test_a_member_counts_as_much_as_another() -> None:
    """Row 0 is like 1 by the two features of `b`, and like 2 by the hundred of `a`."""
    rng = np.random.default_rng(2)
    wide = rng.normal(size=(200, 100))
    wide[2] = wide[0]
    angle = rng.uniform(0, 2 * np.pi, 200)
    angle[1], angle[2] = angle[0], angle[0] + np.pi
    narrow = np.stack([np.cos(angle), np.sin(angle)], axis=1)
    features = np.concatenate([wide, narrow], axis=1).astype(np.float32)
    assert Likeness(features[:, :100], [("a", 100)]).nearest(0, 1) == [2]
    both = Likeness(features, [("a", 100), ("b", 2)]).nearest(0, 20)
    assert 1 in both
    assert 2 not in both


@settings(max_examples=50, deadline=None)
@given(st.integers(1, 30), st.integers(0, 40), st.lists(st.integers(0, 29), max_size=10), st.data())
def test_what_is_unknown_is_like_nothing(
    rows: int, count: int, lost: list[int], data: st.DataObject
) -> None:
    features = np.random.default_rng(rows).normal(size=(rows, 3)).astype(np.float32)
    features[:, 2] = 5.0  # a feature without spread tells nothing, and divides by nothing
    unknown = {row for row in lost if row < rows}
    features[list(unknown)] = np.nan
    row = data.draw(st.integers(0, rows - 1))
    found = Likeness(features, [("a", 3)]).nearest(row, count).tolist()
    expected = 0 if row in unknown else min(count, rows - len(unknown) - 1)
    assert len(found) == len(set(found)) == expected
    assert not ({row} | unknown) & set(found)


def test_members_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match="found 3"):
        Likeness(np.zeros((2, 3), np.float32), [("a", 2)])
