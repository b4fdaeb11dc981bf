"""Training learns, resumes, repeats and stops."""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from lenspipe.errors import InputError
from training import fit
from training.data import Examples, load_images
from training.metrics import Curve
from training.recipe import MemberRecipe, Schedule, parse_recipe

Sets = tuple[Examples, Examples]


@pytest.fixture(scope="module")
def sets(
    tmp_path_factory: pytest.TempPathFactory, make_set: Callable[[Path, int, int], Path]
) -> Sets:
    folder = tmp_path_factory.mktemp("sets")
    train = load_images(make_set(folder / "train.h5", 1, 256))
    return train, load_images(make_set(folder / "validation.h5", 2, 128))


def member(content: dict[str, Any], **changes: Any) -> MemberRecipe:
    recipe = parse_recipe({**content, **changes})
    assert isinstance(recipe, MemberRecipe)
    return recipe


def log(folder: Path) -> list[dict[str, str]]:
    with (folder / fit.LOG).open(newline="") as file:
        return list(csv.DictReader(file))


def weights(fitted: fit.Fitted) -> dict[str, torch.Tensor]:
    return dict(fitted.model.state_dict())


def test_it_learns_what_can_be_separated(
    sets: Sets, recipe_content: dict[str, Any], tmp_path: Path
) -> None:
    train, validation = sets
    fitted = fit.fit(member(recipe_content, epochs=6), train, validation, tmp_path, device="cpu")
    held, _ = fit.place(validation, torch.device("cpu"))
    logits = fit.logits_of(fitted.model, held, torch.device("cpu"))
    assert Curve(logits.numpy(), validation.positive).auroc() > 0.95
    rows = log(tmp_path)
    assert [row["epoch"] for row in rows] == [str(k) for k in range(1, 7)]
    assert float(rows[-1]["train_loss"]) < 0.5 * float(rows[0]["train_loss"])


def test_a_resumed_training_is_the_same_bit_for_bit(
    sets: Sets, recipe_content: dict[str, Any], tmp_path: Path
) -> None:
    recipe = member(recipe_content)
    straight = fit.fit(recipe, *sets, tmp_path / "straight", device="cpu")
    fit.fit(recipe, *sets, tmp_path / "halting", device="cpu", stop_after=2)
    resumed = fit.fit(recipe, *sets, tmp_path / "halting", device="cpu")
    assert straight.epoch == resumed.epoch
    for key, value in weights(straight).items():
        assert torch.equal(value, weights(resumed)[key]), key
    kept = ("epoch", "train_loss", "validation_loss", "auroc")
    assert [[row[k] for k in kept] for row in log(tmp_path / "straight")] == [
        [row[k] for k in kept] for row in log(tmp_path / "halting")
    ]


def test_a_seed_is_a_result(sets: Sets, recipe_content: dict[str, Any], tmp_path: Path) -> None:
    found = [
        weights(fit.fit(member(recipe_content, seed=seed, epochs=1), *sets, folder, device="cpu"))
        for seed, folder in ((1, tmp_path / "a"), (1, tmp_path / "b"), (2, tmp_path / "c"))
    ]
    assert all(torch.equal(found[0][key], found[1][key]) for key in found[0])
    assert any(not torch.equal(found[0][key], found[2][key]) for key in found[0])


def test_it_stops_when_patience_is_spent_and_keeps_the_best(
    sets: Sets, recipe_content: dict[str, Any], tmp_path: Path
) -> None:
    train, validation = sets
    flipped = Examples(
        validation.inputs, 1 - validation.labels, validation.kinds, "flipped", "", {}
    )
    recipe = member(recipe_content, epochs=12, patience=2, ema_decay=0.0)
    fitted = fit.fit(recipe, train, flipped, tmp_path, device="cpu")
    losses = [float(row["validation_loss"]) for row in log(tmp_path)]
    assert len(losses) < 12
    assert fitted.epoch == int(np.argmin(losses)) + 1 == len(losses) - 2
    again = fit.fit(recipe, train, flipped, tmp_path, device="cpu")
    assert (again.epoch, len(log(tmp_path))) == (fitted.epoch, len(losses))


def test_another_recipe_does_not_continue_a_training(
    sets: Sets, recipe_content: dict[str, Any], tmp_path: Path
) -> None:
    fit.fit(member(recipe_content, epochs=1), *sets, tmp_path, device="cpu")
    with pytest.raises(InputError, match=r"checkpoint .*recipe"):
        fit.fit(member(recipe_content, epochs=2), *sets, tmp_path, device="cpu")


def test_schedules_begin_and_end_where_they_say() -> None:
    one_cycle = Schedule(warmup=0.25)
    assert fit.learning_rate(one_cycle, 0.0) == pytest.approx(0.04)
    assert fit.learning_rate(one_cycle, 0.25) == pytest.approx(1.0)
    assert fit.learning_rate(one_cycle, 1.0) == pytest.approx(0.0)
    assert fit.learning_rate(Schedule(name="cosine"), 0.0) == pytest.approx(1.0)
    assert fit.learning_rate(Schedule(name="cosine"), 0.5) == pytest.approx(0.5)
    assert fit.learning_rate(Schedule(name="constant"), 0.9) == 1.0


def test_biases_and_normalisations_do_not_decay() -> None:
    model = torch.nn.Sequential(torch.nn.Conv2d(1, 2, 3), torch.nn.BatchNorm2d(2))
    decaying, free = fit.weight_groups(model, 0.1)
    assert [p.shape for p in decaying["params"]] == [model[0].weight.shape]
    assert len(free["params"]) == 3
    assert (decaying["weight_decay"], free["weight_decay"]) == (0.1, 0.0)


def test_the_mean_of_weights_follows_them() -> None:
    model, mean = torch.nn.Linear(1, 1), torch.nn.Linear(1, 1)
    torch.nn.init.constant_(model.weight, 1.0)
    torch.nn.init.constant_(mean.weight, 0.0)
    pair = fit.floating(mean), fit.floating(model)
    fit.follow(*pair, decay=0.9, step=10_000)
    assert mean.weight.item() == pytest.approx(0.1)
    fit.follow(*pair, decay=0.9, step=0)
    assert mean.weight.item() == pytest.approx(1.0 - 0.9 * 0.1)
