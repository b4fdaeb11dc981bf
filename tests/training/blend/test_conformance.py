"""Every fit gives a blender that `lenspipe.blenders` runs, and that is no worse than its worst."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnxruntime
import pytest

from lenspipe import blenders
from lenspipe.errors import InputError
from lenspipe.models.calibrate import calibrate as apply_calibration
from training import blend
from training.blend.calibration import Kind, calibrate
from training.blend.logistic_fit import logistic_fit
from training.blend.onnx_graph import blend_graph
from training.blend.ridge import deal
from training.metrics import Curve


def members(seed: int = 0, n: int = 4000) -> tuple[np.ndarray, np.ndarray]:
    """Logits of a good, a fair and a useless member, with errors of their own."""
    draw = np.random.default_rng(seed)
    positive = np.arange(n) % 4 == 0
    signal = np.where(positive, 1.0, -1.0)[:, None] * np.array([1.5, 1.0, 0.0])
    return (signal + draw.normal(size=(n, 3))).astype(np.float32), positive


def test_there_is_a_fit_for_every_blender() -> None:
    assert set(blend.names()) == set(blenders.names())


@pytest.mark.parametrize("name", blend.names())
def test_the_blend_ranks_better_than_its_members_on_average(name: str) -> None:
    logits, positive = members()
    options = blend.fit(name, {}, logits, positive)
    assert options.kind == name
    held, truth = members(seed=1)
    scores = blenders.blend(held, options)
    singles = [Curve(held[:, k], truth).auroc() for k in range(3)]
    assert Curve(scores, truth).auroc() > np.mean(singles)


@pytest.mark.parametrize("name", ["weighted_mean", "logistic", "ridge"])
def test_a_fitted_blend_beats_the_best_member(name: str) -> None:
    logits, positive = members()
    options = blend.fit(name, {}, logits, positive)
    held, truth = members(seed=1)
    assert Curve(blenders.blend(held, options), truth).auroc() > Curve(held[:, 0], truth).auroc()


@pytest.mark.parametrize("name", blend.names())
def test_unknown_parameters_are_refused(name: str) -> None:
    with pytest.raises(InputError, match=r"blender\.parameters\.typo"):
        blend.fit(name, {"typo": 1}, *members())


@pytest.mark.parametrize("name", blend.names())
def test_arrays_and_onnx_give_the_same_score(name: str) -> None:
    """Both sum in float64 and round once, so that they differ by one float32 rounding at most; the
    absolute part is float64's own rounding where a sum of logits of up to 100 cancels to nought."""
    logits, positive = members()
    options = blend.fit(name, {}, logits, positive)
    draw = np.random.default_rng(2)
    many = draw.uniform(-100, 100, (500, 3)).astype(np.float32)
    many[7, 1] = np.nan
    model = blend_graph(options, 3).SerializeToString()
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    (found,) = session.run(["score"], {"logits": many})
    wanted = blenders.blend(many, options)
    np.testing.assert_allclose(found, wanted, rtol=1.2e-7, atol=1e-12)
    assert np.flatnonzero(np.isnan(found)).tolist() == [7]


def test_a_graph_for_another_number_of_members_is_refused() -> None:
    options = blenders.parse({"kind": "logistic", "weights": [1.0, 2.0]}, 2)
    with pytest.raises(InputError, match=r"blender\.weights"):
        blend_graph(options, 3)


def test_ridge_is_scikit_learns() -> None:
    from sklearn.linear_model import Ridge

    logits, positive = members()
    parameters = {"strengths": [0.3], "clip": 2.0, "non_negative": False}
    options = blend.fit("ridge", parameters, logits, positive).model_dump()
    wanted = Ridge(alpha=0.3 * len(logits)).fit(np.clip(logits, -2, 2), np.where(positive, 2, -2))
    np.testing.assert_allclose(options["weights"], wanted.coef_, rtol=1e-5)
    assert options["intercept"] == pytest.approx(wanted.intercept_, rel=1e-5)


def ridge_weights(parameters: dict[str, Any], *sample: np.ndarray) -> list[float]:
    found: list[float] = blend.fit("ridge", parameters, *sample).model_dump()["weights"]
    return found


def test_ridge_chooses_its_strength_by_folds_that_hold_both_classes() -> None:
    """Few sources and many members that say nothing: a stronger pull predicts better."""
    draw = np.random.default_rng(3)
    positive = np.arange(40) % 2 == 0
    noise = draw.normal(size=(40, 20))
    noise[:, 0] += positive
    weak, strong, chosen = (
        np.abs(ridge_weights({"strengths": s, "non_negative": False}, noise, positive))
        for s in ([1e-4], [10.0], [1e-4, 10.0])
    )
    assert chosen.max() == strong.max() < weak.max()
    assert deal(positive, 5).tolist()[:6] == [0, 0, 1, 1, 2, 2]
    with pytest.raises(InputError, match="folds"):
        blend.fit("ridge", {"folds": 21}, noise, positive)


def test_ridge_gives_a_member_that_is_mistaken_no_weight_below_zero() -> None:
    logits, positive = members()
    logits[:, 2] = -logits[:, 0] + logits[:, 1]
    assert min(ridge_weights({}, logits, positive)) == 0.0
    assert min(ridge_weights({"non_negative": False}, logits, positive)) < 0.0


def test_logistic_fit_is_scikit_learns() -> None:
    from sklearn.linear_model import LogisticRegression

    logits, positive = members()
    wanted = LogisticRegression(C=np.inf, tol=1e-8, max_iter=1000).fit(logits, positive)
    weights, bias = logistic_fit(logits.astype(np.float64), positive, ridge=0.0, lowest=None)
    np.testing.assert_allclose(weights, wanted.coef_[0], rtol=1e-2, atol=5e-3)
    assert bias == pytest.approx(wanted.intercept_[0], rel=1e-2, abs=5e-3)


def test_bounds_keep_weights_from_falling_below_zero() -> None:
    logits, positive = members()
    logits[:, 2] = -logits[:, 0]
    weights, _ = logistic_fit(logits.astype(np.float64), positive, ridge=0.0, lowest=0.0)
    assert (weights >= 0).all()


def scores(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Scores of which 3 · score + log(1/3) is the logit, a quarter of them of lenses."""
    logits, positive = members(seed, 20_000)
    return logits[:, 0], positive


@pytest.mark.parametrize("kind", ["temperature", "platt", "isotonic"])
def test_calibrated_probabilities_are_frequencies(kind: Kind) -> None:
    shift = np.log(1 / 3) / 3.0 if kind == "temperature" else 0.0  # it has no intercept
    values, positive = scores(0)
    fitted = calibrate(kind, values + shift, positive)
    held, truth = scores(1)
    probability = apply_calibration(held + shift, fitted)
    assert fitted.prevalence == pytest.approx(0.25)
    for low in (0.0, 0.2, 0.4, 0.6, 0.8):
        inside = (probability >= low) & (probability < low + 0.2)
        # At least 300 sources per bin: the fraction scatters by at most 0.029.
        assert inside.sum() > 300
        assert truth[inside].mean() == pytest.approx(probability[inside].mean(), abs=0.07)


def test_a_temperature_is_found_again() -> None:
    values, positive = scores(0)
    fitted = calibrate("temperature", values + np.log(1 / 3) / 3.0, positive)
    assert fitted.slope == pytest.approx(3.0, rel=0.03)
    assert fitted.intercept == 0.0


def test_ends_of_an_isotonic_curve_are_as_sure_as_the_set_allows() -> None:
    """10 non-lenses, a mixed middle, 20 lenses: 1 in 12 at one end, 21 in 22 at the other."""
    values = np.arange(40, dtype=np.float32)
    positive = np.r_[np.zeros(10, bool), np.tile([True, False], 5), np.ones(20, bool)]
    fitted = calibrate("isotonic", values, positive)
    found = apply_calibration(np.array([-99.0, 99.0], np.float32), fitted, prevalence=1e-4)
    odds = np.array([1 / 11, 21.0]) * (1e-4 / (1 - 1e-4)) * (15 / 25)
    np.testing.assert_allclose(found, odds / (1 + odds), rtol=1e-5)


def test_an_isotonic_curve_without_a_middle_still_rises() -> None:
    positive = np.arange(8) >= 4
    fitted = calibrate("isotonic", np.arange(8, dtype=np.float32), positive)
    assert (fitted.probabilities[0], fitted.probabilities[-1]) == pytest.approx((1 / 6, 5 / 6))


@pytest.mark.parametrize("kind", ["temperature", "platt", "isotonic"])
def test_scores_that_fall_with_the_lenses_are_refused(kind: Kind) -> None:
    values, positive = scores(0)
    with pytest.raises(InputError, match="higher for lenses"):
        calibrate(kind, -values, positive)
