"""Every blender, found by itself, is held to the same behaviour."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from lenspipe import blenders, registry
from lenspipe.errors import InputError

MEMBERS = 3
# Options by field name; a blender with a further required field adds its value here.
VALUES: dict[str, Any] = {"weights": [0.5, 0.0, 2.0], "intercept": -1.0}

logit_tables = arrays(
    np.float32,
    st.tuples(st.integers(0, 12), st.just(MEMBERS)),
    elements=st.floats(-100, 100, width=32),
)


def content(kind: str) -> dict[str, Any]:
    fields = registry.load(blenders, kind, "blender.kind").Options.model_fields
    return {"kind": kind, **{name: VALUES[name] for name in fields if name != "kind"}}


@pytest.fixture(params=blenders.names(), scope="module")
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def test_there_are_blenders() -> None:
    assert {"mean", "weighted_mean", "logistic", "ridge"} <= set(blenders.names())


@settings(max_examples=20, deadline=None)
@given(logits=logit_tables, seed=st.integers(0, 99))
def test_rows_are_independent_and_keep_their_order(
    kind: str, logits: np.ndarray, seed: int
) -> None:
    options = blenders.parse(content(kind), MEMBERS)
    blended = blenders.blend(logits, options)
    assert blended.shape == (len(logits),)
    assert blended.dtype == np.float32
    order = np.random.default_rng(seed).permutation(len(logits))
    np.testing.assert_array_equal(blenders.blend(logits[order], options), blended[order])
    for row in range(len(logits)):
        alone = blenders.blend(logits[row : row + 1], options)
        np.testing.assert_array_equal(alone, blended[row : row + 1])


@pytest.mark.parametrize("member", range(MEMBERS))
def test_nan_of_any_member_is_nan_there_only(kind: str, member: int) -> None:
    options = blenders.parse(content(kind), MEMBERS)
    logits = np.random.default_rng(0).normal(size=(5, MEMBERS)).astype(np.float32)
    whole = blenders.blend(logits, options)
    logits[2, member] = np.nan
    blended = blenders.blend(logits, options)
    assert np.flatnonzero(np.isnan(blended)).tolist() == [2]
    np.testing.assert_array_equal(np.delete(blended, 2), np.delete(whole, 2))


@settings(max_examples=20, deadline=None)
@given(logits=logit_tables, rise=st.floats(0, 50, width=32), member=st.integers(0, MEMBERS - 1))
def test_a_higher_logit_never_lowers_the_score(
    kind: str, logits: np.ndarray, rise: float, member: int
) -> None:
    """With weights that are not negative, as in `VALUES`."""
    options = blenders.parse(content(kind), MEMBERS)
    before = blenders.blend(logits, options)
    logits[:, member] += np.float32(rise)
    assert (blenders.blend(logits, options) >= before).all()


def test_logits_are_left_as_they_were(kind: str) -> None:
    logits = np.random.default_rng(0).normal(size=(5, MEMBERS)).astype(np.float32)
    kept = logits.copy()
    blenders.blend(logits, blenders.parse(content(kind), MEMBERS))
    np.testing.assert_array_equal(logits, kept)


def test_unknown_keys_are_refused(kind: str) -> None:
    with pytest.raises(InputError, match=r"blender\.temperature"):
        blenders.parse({**content(kind), "temperature": 1.0}, MEMBERS)


def test_options_for_another_number_of_members_are_refused(kind: str) -> None:
    options = blenders.parse(content(kind), MEMBERS)
    per_member = [name for name, value in options if isinstance(value, tuple)]
    if not per_member:
        assert blenders.blend(np.zeros((2, MEMBERS + 1), np.float32), options).shape == (2,)
        return
    with pytest.raises(InputError, match=per_member[0]):
        blenders.parse(content(kind), MEMBERS + 1)
    with pytest.raises(InputError, match=per_member[0]):
        blenders.blend(np.zeros((2, MEMBERS + 1), np.float32), options)


def test_an_unknown_kind_lists_what_there_is() -> None:
    with pytest.raises(InputError, match="logistic, mean, ridge, weighted_mean"):
        blenders.parse({"kind": "median_of_means"}, MEMBERS)
