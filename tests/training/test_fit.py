"""Training learns, resumes, repeats and stops."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from lenspipe.errors import InputError
from training import fit, learner
from training.data import Examples, load_images
from training.feed import place
from training.logs import read_log
from training.merging import Arcs
from training.metrics import Curve
from training.recipe import MemberRecipe, parse_recipe

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
    return read_log(folder / "log.csv")


def weights(fitted: fit.Fitted) -> dict[str, torch.Tensor]:
    return dict(fitted.model.state_dict())


def test_it_learns_what_can_be_separated(
    sets: Sets, recipe_content: dict[str, Any], tmp_path: Path
) -> None:
    train, validation = sets
    fitted = fit.fit(member(recipe_content, epochs=6), train, validation, tmp_path, device="cpu")
    held, _ = place(validation, torch.device("cpu"))
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


def test_biases_and_normalisations_do_not_decay() -> None:
    model = torch.nn.Sequential(torch.nn.Conv2d(1, 2, 3), torch.nn.BatchNorm2d(2))
    decaying, free = learner.weight_groups(model, 0.1)
    assert [p.shape for p in decaying["params"]] == [model[0].weight.shape]
    assert len(free["params"]) == 3
    assert (decaying["weight_decay"], free["weight_decay"]) == (0.1, 0.0)


def test_the_mean_of_weights_follows_them() -> None:
    model, mean = torch.nn.Linear(1, 1), torch.nn.Linear(1, 1)
    torch.nn.init.constant_(model.weight, 1.0)
    torch.nn.init.constant_(mean.weight, 0.0)
    pair = learner.floating(mean), learner.floating(model)
    learner.follow(*pair, decay=0.9, step=10_000)
    assert mean.weight.item() == pytest.approx(0.1)
    learner.follow(*pair, decay=0.9, step=0)
    assert mean.weight.item() == pytest.approx(1.0 - 0.9 * 0.1)


def full(content: dict[str, Any], **changes: Any) -> dict[str, Any]:
    """A recipe that uses all that has a state, or draws."""
    return {
        **content,
        "splits": {**content["splits"], "arcs": {"seed": 9}},
        "architecture": {
            "name": "holismokes_cnn",
            "parameters": {**content["architecture"]["parameters"], "dropout": 0.3},
        },
        "augmentation": [
            {"name": "d4"},
            {"name": "viewpoint", "parameters": {"shift_arcsec": 0.25}},
            {"name": "psf"},
            {"name": "brightness", "parameters": {"colour_mag": 0.1}},
            {"name": "noise"},
        ],
        "optimiser": {"learning_rate": 0.01, "l2": 1e-4, "weight_decay": 0.0},
        "schedule": {"name": "plateau", "patience": 1, "factor": 0.5},
        "sampling": {"lens_fraction": 0.5, "kinds": {"spiral": 2.0}},
        "merging": {"hosts": ["star", "spiral"], "share": 0.5},
        "select_by": "tpr10",
        **changes,
    }


def toy_arcs(train: Examples) -> Arcs:
    y, x = np.mgrid[:16, :16] - 8.0
    ring = np.exp(-((np.hypot(x, y) - 5.0) ** 2)).astype(np.float32)
    images = np.broadcast_to(ring, (4, 2, 16, 16)).copy()
    return Arcs({"image": images}, dict(train.specs), {"image": np.full(2, 5.0, np.float32)})


@pytest.mark.parametrize("precision", ["float32", "bfloat16", "float16"])
def test_all_of_it_together_resumes_bit_for_bit(
    sets: Sets, recipe_content: dict[str, Any], tmp_path: Path, precision: str
) -> None:
    """Draws, sampler, merging, plateau, running mean and the scaler of float16: weights and log are
    equal after a halt behind each epoch."""
    recipe, arcs = member(full(recipe_content, precision=precision)), toy_arcs(sets[0])
    train, held = sets  # with wrong labels, so that epochs get worse and the rate falls
    sets = train, replace(held, labels=1 - held.labels)
    straight = fit.fit(recipe, *sets, tmp_path / "straight", arcs=arcs, device="cpu")
    for epochs in (1, 2, 4):
        halting = fit.fit(
            recipe, *sets, tmp_path / "halting", arcs=arcs, device="cpu", stop_after=epochs
        )
    assert str(straight.figures) == str(halting.figures)  # some are NaN
    for key, value in weights(straight).items():
        assert torch.equal(value, weights(halting)[key]), key
    last = [torch.load(tmp_path / name / fit.LAST) for name in ("straight", "halting")]
    assert str(last[0]["optimiser"]) == str(last[1]["optimiser"])
    assert (last[0]["rate"], last[0]["scaler"]) == (last[1]["rate"], last[1]["scaler"])
    lines = [
        [{**row, "seconds": ""} for row in log(tmp_path / name)] for name in ("straight", "halting")
    ]
    assert lines[0] == lines[1]
    assert len({row["learning_rate"] for row in lines[0]}) > 1


def test_an_epoch_that_is_done_again_replaces_its_line(
    sets: Sets, recipe_content: dict[str, Any], tmp_path: Path
) -> None:
    """A halt after the log was written and before the checkpoint."""
    recipe = member(recipe_content, epochs=2)
    fit.fit(recipe, *sets, tmp_path, device="cpu", stop_after=1)
    before = (tmp_path / fit.LAST).read_bytes()
    fit.fit(recipe, *sets, tmp_path, device="cpu")
    (tmp_path / fit.LAST).write_bytes(before)
    fit.fit(recipe, *sets, tmp_path, device="cpu")
    assert [row["epoch"] for row in log(tmp_path)] == ["1", "2"]


def test_the_best_epoch_is_the_one_of_the_figure_that_was_asked_for(
    sets: Sets, recipe_content: dict[str, Any], tmp_path: Path
) -> None:
    recipe = member(recipe_content, epochs=5, select_by="tpr_at_fpr_0.02")
    fitted = fit.fit(recipe, *sets, tmp_path, device="cpu")
    rows = log(tmp_path)
    found = [(float(r["tpr_at_fpr_0.02"]), -float(r["validation_loss"])) for r in rows]
    assert fitted.epoch == found.index(max(found)) + 1
    assert {"auroc", "tpr0", "tpr10", "tpr_at_fpr_0.01", "tpr_at_fpr_0.001"} <= set(rows[0])


def test_l2_is_adams_own_penalty() -> None:
    """AdamW without decay, and l2 on the gradient, against torch's Adam with its weight decay."""
    models = [torch.nn.Linear(3, 1, bias=False) for _ in range(2)]
    models[1].load_state_dict(models[0].state_dict())
    ours = torch.optim.AdamW(models[0].parameters(), lr=0.1, weight_decay=0.0)
    theirs = torch.optim.Adam(models[1].parameters(), lr=0.1, weight_decay=0.3)
    for _ in range(5):
        for model, optimiser in zip(models, (ours, theirs), strict=True):
            optimiser.zero_grad()
            torch.autograd.backward(model(torch.ones(2, 3)).sum())
            if optimiser is ours:
                learner.pull(list(model.parameters()), 0.3)
            optimiser.step()
    torch.testing.assert_close(models[0].weight, models[1].weight)
