from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lenspipe.errors import InputError
from lenspipe.models.calibrate import calibrate, check, to_prevalence
from lenspipe.models.card import Calibration

PLATT = Calibration(slope=1.7, intercept=-2.0)
ISOTONIC = Calibration(kind="isotonic", scores=(-3.0, 0.0, 4.0), probabilities=(0.01, 0.2, 0.9))
ENDS = Calibration(kind="isotonic", scores=(-3.0, 4.0), probabilities=(0.0, 1.0))
PREVALENCES = st.floats(1e-6, 0.99)


@pytest.mark.parametrize("calibration", [PLATT, ISOTONIC, None])
@settings(max_examples=40, deadline=None)
@given(scores=st.lists(st.floats(width=32), max_size=30))
def test_monotone_in_0_to_1_and_nan_stays(
    calibration: Calibration | None, scores: list[float]
) -> None:
    values = np.sort(np.asarray(scores, np.float32))
    found = calibrate(values, calibration)
    assert found.dtype == np.float32
    np.testing.assert_array_equal(np.isnan(found), np.isnan(values))
    known = found[~np.isnan(found)]
    assert ((known >= 0) & (known <= 1)).all()
    assert (np.diff(known) >= 0).all()


def test_platt_by_its_formula() -> None:
    scores = np.array([-5.0, 0.0, 1.25], np.float32)
    np.testing.assert_allclose(
        calibrate(scores, PLATT), 1.0 / (1.0 + np.exp(-(1.7 * scores - 2.0))), rtol=1e-6
    )


def test_isotonic_between_and_beyond_its_steps() -> None:
    found = calibrate(np.array([-9.0, -1.5, 2.0, 99.0]), ISOTONIC)
    np.testing.assert_allclose(found, [0.01, 0.105, 0.55, 0.9], rtol=1e-6)


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"slope": 0.0}, "slope"),
        ({"kind": "isotonic", "scores": (1.0,), "probabilities": (0.5,)}, "scores"),
        ({"kind": "isotonic", "scores": (1.0, 0.0), "probabilities": (0.1, 0.5)}, "scores"),
        (
            {"kind": "isotonic", "scores": (0.0, 1.0), "probabilities": (0.5, 0.1)},
            "probabilities",
        ),
        (
            {"kind": "isotonic", "scores": (0.0, 1.0), "probabilities": (0.5, 1.1)},
            "probabilities",
        ),
    ],
)
def test_curves_that_fall_are_refused(fields: dict[str, Any], field: str) -> None:
    with pytest.raises(InputError, match=field):
        check(Calibration(**fields))


def test_prevalence_by_bayes() -> None:
    """1,000 sources: of a set half lenses, p = 0.8 means odds 4; one lens in 1,000 makes 4/999."""
    found = to_prevalence(np.array([0.8]), 0.5, 0.001)
    np.testing.assert_allclose(found, [(4 / 999) / (1 + 4 / 999)])


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.floats(0, 1), max_size=20),
    st.floats(1e-4, 0.9),
    st.floats(1e-4, 0.9),
)
def test_prevalence_and_back(probabilities: list[float], one: float, other: float) -> None:
    """Exact arithmetic would give the same back; near 1 float64 holds 1 - p to 1e-16 only."""
    values = np.asarray(probabilities)
    moved = to_prevalence(values, one, other)
    assert ((moved >= 0) & (moved <= 1)).all()
    np.testing.assert_allclose(to_prevalence(moved, other, one), values, atol=1e-7)


def test_prevalence_keeps_nan_and_refuses_what_is_no_fraction() -> None:
    assert np.isnan(to_prevalence(np.array([np.nan]), 0.5, 0.1)).all()
    with pytest.raises(InputError, match="survey_prevalence"):
        to_prevalence(np.array([0.5]), 0.5, 0.0)


@pytest.mark.parametrize("calibration", [PLATT, ISOTONIC, ENDS])
@settings(max_examples=40, deadline=None)
@given(scores=st.lists(st.floats(-60, 60, width=32), max_size=30), prevalence=PREVALENCES)
def test_at_a_surveys_prevalence_ranks_stay(
    calibration: Calibration, scores: list[float], prevalence: float
) -> None:
    """Monotone, in 0 to 1, lower where lenses are rarer, never 0/0 (warnings are errors)."""
    values = np.sort(np.asarray(scores, np.float32))
    own, moved = calibrate(values, calibration), calibrate(values, calibration, prevalence)
    assert ((moved >= 0) & (moved <= 1)).all()
    assert (np.diff(moved) >= 0).all()
    lower = moved <= own if prevalence <= calibration.prevalence else moved >= own
    assert lower.all()


@pytest.mark.parametrize("calibration", [PLATT, ISOTONIC, ENDS])
def test_at_its_own_prevalence_a_calibration_is_itself(calibration: Calibration) -> None:
    values = np.linspace(-8, 8, 101, dtype=np.float32)
    moved = calibrate(values, calibration, calibration.prevalence)
    np.testing.assert_allclose(moved, calibrate(values, calibration), rtol=1e-6)


def test_a_sure_lens_keeps_its_odds_at_a_low_prevalence() -> None:
    """Logit 20 of a half-and-half set, at 1 in 10⁴: 20 - log(9999). In float32 it would be 1."""
    found = calibrate(np.array([20.0]), Calibration(prevalence=0.5), 1e-4)
    wanted = np.exp(20.0) / 9999
    np.testing.assert_allclose(found, wanted / (1 + wanted), rtol=1e-7)
    assert found[0] < 1.0


def test_ends_of_exactly_0_and_1_stay_certain() -> None:
    np.testing.assert_array_equal(calibrate(np.array([-9.0, 9.0]), ENDS, 1e-6), [0.0, 1.0])
