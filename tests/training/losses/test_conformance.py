"""Every loss keeps to the same behaviour; a new file in the package is tested by itself."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional

from lenspipe.errors import InputError
from training import losses

LABELS = torch.tensor([0.0, 1.0, 1.0, 0.0])
RIGHT = torch.tensor([-3.0, 3.0, 2.0, -1.0])


@pytest.mark.parametrize("name", losses.names())
def test_right_is_better_than_wrong(name: str) -> None:
    loss = losses.build(name, {})
    assert 0 <= loss(RIGHT, LABELS) < loss(torch.zeros(4), LABELS) < loss(-RIGHT, LABELS)


@pytest.mark.parametrize("name", losses.names())
def test_gradient_points_to_the_label_and_stays_finite(name: str) -> None:
    logits = torch.tensor([-60.0, 60.0, -60.0, 1.0], requires_grad=True)
    torch.autograd.backward(losses.build(name, {})(logits, LABELS))
    assert logits.grad is not None
    assert torch.isfinite(logits.grad).all()
    assert logits.grad[2] < 0 < logits.grad[3]


@pytest.mark.parametrize("name", losses.names())
def test_unknown_parameters_are_refused(name: str) -> None:
    with pytest.raises(InputError, match=r"loss\.parameters\.typo"):
        losses.build(name, {"typo": 1})


def test_cross_entropy_is_torchs() -> None:
    wanted = functional.binary_cross_entropy_with_logits(RIGHT, LABELS)
    torch.testing.assert_close(losses.build("cross_entropy", {})(RIGHT, LABELS), wanted)


def test_focal_without_focus_is_half_the_cross_entropy() -> None:
    wanted = 0.5 * functional.binary_cross_entropy_with_logits(RIGHT, LABELS)
    torch.testing.assert_close(losses.build("focal", {"gamma": 0.0})(RIGHT, LABELS), wanted)


def test_focal_by_hand() -> None:
    """Lin et al. 2017, equation 5: p = 0.8 of the right label, γ = 2, α = 0.25."""
    logit = torch.logit(torch.tensor([0.8]))
    found = losses.build("focal", {"gamma": 2.0, "alpha": 0.25})(logit, torch.ones(1))
    assert found.item() == pytest.approx(0.25 * 0.2**2 * 0.2231435, rel=1e-5)


@pytest.mark.parametrize("gamma", [0.0, 0.3, 0.9, 1.0, 2.0, 5.0])
def test_focal_has_a_gradient_however_sure_the_network_is(gamma: float) -> None:
    logits = torch.tensor([-40.0, 40.0, -17.0, 17.0, 40.0, -40.0], requires_grad=True)
    labels = torch.tensor([0.0, 1.0, 0.0, 1.0, 0.0, 1.0])
    loss = losses.build("focal", {"gamma": gamma})(logits, labels)
    torch.autograd.backward(loss)
    assert torch.isfinite(loss)
    assert logits.grad is not None
    assert torch.isfinite(logits.grad).all()


def test_smoothing_makes_certainty_costly() -> None:
    loss = losses.build("cross_entropy", {"smoothing": 0.1})
    sure, very_sure = torch.tensor([3.0]), torch.tensor([30.0])
    assert loss(sure, torch.ones(1)) < loss(very_sure, torch.ones(1))
