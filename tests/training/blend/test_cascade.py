"""A cascade loses what it may, asks as few as that allows, and is the same in `lenspipe`."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from lenspipe import blenders
from lenspipe.errors import InputError
from lenspipe.models.ensemble import load_ensemble
from lenspipe.models.ensemble_file import Cascade
from tests import toy_models
from training.blend.cascade import (
    CascadeChoice,
    bound,
    cascaded,
    fit_cascade,
    judge_cascade,
    passed,
    time_ratio,
)
from training.metrics import Curve

NAMES = ("dear", "cheap")
SECONDS = {"dear": 9.0, "cheap": 1.0}
CHOICE = CascadeChoice(fpr=0.01, tpr_loss=0.02, prevalence=1e-3)


def sample(seed: int = 0, n: int = 20_000) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Logits of two members, a tenth lenses, and their mean."""
    draw = np.random.default_rng(seed)
    positive = np.arange(n) % 10 == 0
    logits = np.where(positive, 2.0, -2.0)[:, None] * [1.0, 0.8] + draw.normal(size=(n, 2))
    logits = logits.astype(np.float32)
    return logits, logits.mean(axis=1), positive


def fitted(choice: CascadeChoice = CHOICE) -> Cascade:
    logits, blended, positive = sample()
    return fit_cascade(choice, NAMES, logits, blended, positive, SECONDS, fprs=(0.01,))


def test_exactly_the_stated_lenses_are_lost_on_the_set_that_it_was_fitted_on() -> None:
    logits, blended, positive = sample()
    judged = judge_cascade(CHOICE, fitted(), NAMES, logits, blended, positive)
    assert judged.tpr_loss == pytest.approx(0.02)  # 40 of 2,000
    assert (judged.n_positives, judged.n_negatives) == (2_000, 18_000)
    assert judged.cost_ratio is None


def test_another_set_loses_as_much_within_the_interval() -> None:
    logits, blended, positive = sample(seed=1)
    judged = judge_cascade(CHOICE, fitted(), NAMES, logits, blended, positive)
    assert judged.tpr_loss_interval[0] <= 0.02 <= judged.tpr_loss_interval[1]


def test_the_cheap_member_goes_first_and_most_rows_stop_there() -> None:
    logits, blended, positive = sample()
    cascade = fitted()
    judged = judge_cascade(CHOICE, cascade, NAMES, logits, blended, positive, SECONDS)
    assert cascade.first == "cheap"
    assert judged.asked < 0.2 < judged.asked_lenses
    assert judged.asked == pytest.approx(1e-3 * judged.asked_lenses + 0.999 * judged.asked_others)
    assert judged.cost_ratio == pytest.approx((1 + judged.asked * 9) / 10)
    assert fitted(CHOICE.model_copy(update={"first": "dear"})).first == "dear"


def test_a_larger_loss_asks_fewer() -> None:
    logits, blended, positive = sample()
    bounds = [
        bound(logits[:, 1], blended, positive, CHOICE.model_copy(update={"tpr_loss": loss}))
        for loss in (1e-4, 0.01, 0.1)
    ]
    assert bounds == sorted(bounds)
    assert len(set(bounds)) == 3


def test_a_loss_of_everything_is_refused() -> None:
    logits, blended, positive = sample()
    with pytest.raises(InputError, match=r"cascade\.tpr_loss: expected less than the TPR"):
        bound(logits[:, 1], blended, positive, CHOICE.model_copy(update={"tpr_loss": 0.999}))


def test_rows_that_stop_rank_below_the_floor_and_all_others_above() -> None:
    logits, blended, positive = sample()
    cascade = fitted()
    asked = passed(cascade, logits[:, 1])
    scores = cascaded(cascade, NAMES, logits, blended)
    assert scores[~asked].max() <= cascade.floor <= scores[asked].min()
    threshold = Curve(blended, positive).threshold(0.01)
    assert cascade.floor <= threshold - 0.5
    above = blended > threshold
    np.testing.assert_array_equal(scores[asked & above], blended[asked & above])


def test_members_that_hardly_err_still_see_more_than_lie_above_a_threshold() -> None:
    """No lens is lost and few non-lenses pass: the bound is lowered, for a threshold to exist."""
    logits, _, positive = sample()
    logits += np.where(positive, 9.0, -9.0)[:, None].astype(np.float32)
    blended = logits.mean(axis=1)
    cascade = fit_cascade(CHOICE, NAMES, logits, blended, positive, SECONDS, fprs=(0.01, 1e-3))
    first = logits[:, NAMES.index(cascade.first)]
    assert passed(cascade, first)[~positive].mean() == pytest.approx(0.03, abs=1e-3)
    scores = cascaded(cascade, NAMES, logits, blended)
    assert Curve(scores, positive).threshold(0.01) > cascade.floor


def test_ranks_above_the_threshold_lose_no_more_than_was_stated() -> None:
    logits, blended, positive = sample()
    scores = cascaded(fitted(), NAMES, logits, blended)
    false = int(0.01 * 18_000)
    assert Curve(scores, positive).tpr(false) >= Curve(blended, positive).tpr(false) - 0.02


def test_training_and_lenspipe_give_the_same_scores(tmp_path: Path) -> None:
    """The same float32 operations on the same logits: equal bit for bit."""
    path = toy_models.make_ensemble(
        tmp_path, cascade={"first": "toy-b", "below": 0.1, "floor": -0.7}
    )
    images = np.random.default_rng(0).normal(size=(40, 3, 8, 8)).astype(np.float32)
    ensemble = load_ensemble(str(path), provider="cpu", batch_size=8)
    whole, stopped = ensemble.score({"image": images}, full=True), ensemble.score({"image": images})
    blended = blenders.blend(whole.members, ensemble.description.blender)
    assert ensemble.cascade is not None
    found = cascaded(ensemble.cascade, ensemble.member_names, whole.members, blended)
    np.testing.assert_array_equal(found, stopped.score)
    asked = passed(ensemble.cascade, whole.members[:, 1])
    assert 0 < asked.sum() < 40
    measured = time_ratio(path, {"image": images}, repeats=2)
    assert measured["asked"] == asked.mean()
    assert measured["rows"] == 40
    assert min(measured["time_ratios"]) > 0
