"""What an augmentation may change, and what not."""

from __future__ import annotations

import pytest
import torch

from training.augment import augment, move, noise_rms, source_pixels
from training.recipe import Augmentation

STILL = Augmentation(d4=False, shift_pixels=0)


def draws(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_the_eight_elements_are_the_eight_views() -> None:
    image = torch.arange(25.0).reshape(5, 5)
    still = torch.zeros(2, 8, dtype=torch.int64)
    index = source_pixels(torch.arange(8), still, 5)
    found = {tuple(view.tolist()) for view in image.flatten()[index.reshape(8, -1)]}
    wanted = {
        tuple(torch.rot90(side, k).flatten().tolist())
        for k in range(4)
        for side in (image, image.flip(1))
    }
    assert found == wanted


def test_a_shift_repeats_the_edge() -> None:
    image = torch.arange(16.0).reshape(1, 1, 4, 4)
    index = source_pixels(torch.tensor([0]), torch.tensor([[1], [-2]]), 4)
    moved = image.flatten()[index[0]]
    assert moved[0].tolist() == [4.0, 4.0, 4.0, 5.0]
    assert moved[3].tolist() == [12.0, 12.0, 12.0, 13.0]


def test_bands_move_together_and_stamps_apart() -> None:
    one = torch.randn(1, 1, 8, 8, generator=draws()).expand(64, 3, 8, 8)
    moved = move(one, Augmentation(shift_pixels=2), draws())
    assert torch.equal(moved[:, 0], moved[:, 2])
    assert len({tuple(m.flatten().tolist()) for m in moved[:, 0]}) > 32


def test_nothing_asked_nothing_changed() -> None:
    images = torch.randn(4, 3, 8, 8, generator=draws())
    assert torch.equal(augment(images, STILL, draws()), images)


def test_brightness_stays_within_its_magnitudes() -> None:
    images = torch.ones(500, 2, 4, 4)
    bright = augment(images, STILL.model_copy(update={"brightness_mag": 0.5}), draws())
    mags = -2.5 * torch.log10(bright[:, :, 0, 0])
    assert mags.abs().max() <= 0.5 + 1e-5
    assert mags.abs().max() > 0.45
    assert torch.equal(mags[:, 0], mags[:, 1])


def test_noise_is_measured_and_added_in_proportion() -> None:
    images = 3.0 * torch.randn(200, 1, 32, 32, generator=draws())
    assert noise_rms(images).mean().item() == pytest.approx(3.0, rel=0.03)
    noisy = augment(images, STILL.model_copy(update={"noise": 1.0}), draws(1))
    added = (noisy - images).std(dim=(1, 2, 3))
    # The strongest draw is nearly 1; a stamp's own noise is known to a tenth from its border.
    assert added.max().item() == pytest.approx(3.0, rel=0.3)
    assert added.min().item() < 0.3


def test_the_same_seed_gives_the_same_views() -> None:
    images = torch.randn(8, 3, 8, 8, generator=draws())
    choice = Augmentation(noise=0.5, brightness_mag=0.2, colour_mag=0.1)
    assert torch.equal(augment(images, choice, draws(3)), augment(images, choice, draws(3)))
    assert not torch.equal(augment(images, choice, draws(3)), augment(images, choice, draws(4)))
