"""Which epoch is kept."""

from __future__ import annotations

import math

import numpy as np
import pytest

from lenspipe.errors import InputError
from training.selection import Choice, check_supported, order, validation_figures

# Two of twelve non-lenses above the middle lens; by hand: TPR0 1/3, TPR at 10% (one) 2/3.
LOGITS = np.array([9.0, 6.0, 1.0, 7.0, 5.0, *np.linspace(-1.0, -9.0, 10)])
LENSES = np.array([True] * 3 + [False] * 12)


def test_figures_by_hand() -> None:
    found = validation_figures(LOGITS, LENSES, 0.5, "tpr_at_fpr_0.1")
    assert found["tpr0"] == pytest.approx(1 / 3)
    assert found["tpr10"] == 1.0
    assert found["tpr_at_fpr_0.1"] == pytest.approx(2 / 3)
    assert found["auroc"] == pytest.approx(1.0 - 3 / 36)
    assert math.isnan(found["tpr_at_fpr_0.01"])  # twelve non-lenses hold no hundredth
    assert found["validation_loss"] == 0.5


@pytest.mark.parametrize("select_by", ["auroc", "tpr0", "tpr10", "tpr_at_fpr_0.1"])
def test_the_figure_counts_first_and_the_loss_among_equals(select_by: str) -> None:
    worse = dict.fromkeys(("auroc", "tpr0", "tpr10", "tpr_at_fpr_0.1"), 0.5)
    better = {**worse, select_by: 0.6}
    assert order({**better, "validation_loss": 9.0}, select_by) > order(
        {**worse, "validation_loss": 0.1}, select_by
    )
    assert order({**worse, "validation_loss": 0.1}, select_by) > order(
        {**worse, "validation_loss": 0.2}, select_by
    )


def test_epochs_since_the_best_are_counted_and_kept() -> None:
    choice = Choice("validation_loss")
    found = [choice.better({"validation_loss": loss}) for loss in (0.5, 0.6, 0.4, 0.4, 0.7)]
    assert found == [True, False, True, False, False]
    again = Choice("validation_loss")
    again.load_state_dict(choice.state_dict())
    assert (again.best, again.stale) == (choice.best, 2)


@pytest.mark.parametrize(("figure", "n"), [("tpr10", 9), ("tpr_at_fpr_0.001", 999)])
def test_a_figure_that_the_set_is_too_small_for_is_refused(figure: str, n: int) -> None:
    check_supported(figure, n + 1)
    with pytest.raises(InputError, match="select_by: expected a figure that the validation set"):
        check_supported(figure, n)
