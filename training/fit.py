"""Fit one network to one training set: on CPUs or GPUs, resumable, the same for the same seed.

Every epoch draws from its own seed, so a run that is resumed after epoch k goes on as if it had
never stopped; on a CPU with the same number of threads the weights are equal bit for bit.
"""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from lenspipe.errors import InputError
from training import bars, checkpoint, network, start
from training.architectures.layers import Shapes
from training.data import Examples
from training.feed import Feed, Tensors, place
from training.learner import Learner
from training.logs import Logs
from training.merging import Arcs
from training.recipe import MemberRecipe, StartFrom
from training.sampling import epoch_rows
from training.schedule import Rate
from training.selection import Choice, check_supported, validation_figures
from training.together import Group, joined

LAST, BEST = "last.pt", "best.pt"
SCORE_BATCH = 1024
logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Fitted:
    """A network after training, with the weights of its best epoch."""

    model: nn.Module
    epoch: int
    figures: dict[str, float]


def fit(
    recipe: MemberRecipe,
    train: Examples,
    validation: Examples,
    folder: Path,
    *,
    arcs: Arcs | None = None,
    begin: StartFrom | None = None,
    device: str | None = None,
    stop_after: int | None = None,
) -> Fitted:
    """Train until the recipe's epochs or its patience are spent; go on from `folder` if begun.

    arcs: what the recipe's `merging` adds to hosts. begin: the checkpoint whose weights come first,
    in place of the recipe's `start_from`. device: `cpu`, `cuda` …; default: a GPU where there is
    one. stop_after: end this call early, after so many epochs in all, to be resumed by a later one.
    In a group of processes every one calls this, and the first judges and writes.
    """
    folder.mkdir(parents=True, exist_ok=True)
    check_supported(recipe.select_by, int((~validation.positive).sum()))
    with joined(device) as group:
        group.check_batch(recipe.batch_size)
        torch.manual_seed(recipe.seed)
        learner = Learner(recipe, begun(recipe, train.shapes, begin), group)
        feed = Feed(recipe, train, group.where, arcs)
        held_inputs, held_labels = place(validation, group.where)
        steps = max(1, len(train) // recipe.batch_size)
        rate, choice = Rate(recipe.schedule), Choice(recipe.select_by)
        parts = {**learner.parts, "rate": rate, "choice": choice}
        done = restore(parts, recipe, folder)
        logs = Logs(folder, done) if group.leads else None

        with bars.shown(recipe.name, recipe.epochs, done, steps, group.leads) as shown:
            for epoch in range(done, min(recipe.epochs, stop_after or recipe.epochs)):
                if choice.stale >= recipe.patience:
                    break
                started = time.perf_counter()
                row = {"epoch": epoch + 1, "learning_rate": rate_of(recipe, rate, epoch)}
                row["train_loss"] = train_epoch(learner, feed, train, rate, epoch, group, shown)
                figures = judge(learner, held_inputs, held_labels, validation, group)
                better = choice.better(figures)
                rate.epoch_done(better)
                row |= figures | {"seconds": time.perf_counter() - started}
                shown.end_epoch(f"{recipe.select_by} {figures[recipe.select_by]:g}")
                if logs is not None:
                    logs.epoch({name: round(value, 6) for name, value in row.items()})
                    logger.info("%s %s", recipe.name, in_words(row))
                    keep(recipe, folder, parts, epoch + 1, figures, better)
        if logs is not None:
            logs.close()
        group.told(None)  # the others wait until all is written
    return load_best(recipe, train.shapes, folder)


def train_epoch(
    learner: Learner,
    feed: Feed,
    train: Examples,
    rate: Rate,
    epoch: int,
    group: Group,
    shown: bars.Bars,
) -> float:
    """One epoch's steps; the mean loss of the training set as the network saw it."""
    recipe = learner.recipe
    draws = seeded(group.where, recipe.seed, epoch)
    rows = epoch_rows(train, recipe.sampling, recipe.batch_size, draws)  # (step, batch)
    if group.size > 1:  # each process its own views and dropout
        draws = seeded(group.where, recipe.seed, epoch, group.rank + 1)
    learner.begin_epoch()
    shown.begin_epoch()
    total = torch.zeros((), device=group.where)
    for step, batch_rows in enumerate(rows):
        batch, labels = feed.batch(group.share(batch_rows), draws)
        done = epoch * len(rows) + step
        now = rate_of(recipe, rate, done / len(rows))
        total += learner.step(batch, labels, now, done)
        shown.step()
    return float(group.mean(total)) / len(rows)


def rate_of(recipe: MemberRecipe, rate: Rate, epochs: float) -> float:
    """The learning rate after so many epochs."""
    return recipe.optimiser.learning_rate * rate.at(epochs / recipe.epochs)


def keep(
    recipe: MemberRecipe,
    folder: Path,
    parts: dict[str, Any],
    epoch: int,
    figures: dict[str, float],
    better: bool,
) -> None:
    """Write what the next epoch, or a resumed training, begins with; and the best weights."""
    kept = {"recipe": recipe.model_dump_json(), "epoch": epoch, "figures": figures}
    if better:
        checkpoint.save({**kept, "model": parts["averaged"].state_dict()}, folder / BEST)
    states = {name: part.state_dict() for name, part in parts.items()}
    checkpoint.save({**kept, **states}, folder / LAST)


def begun(recipe: MemberRecipe, shapes: Shapes, begin: StartFrom | None) -> nn.Module:
    """The recipe's network with its first weights."""
    model = network.build(recipe, shapes)
    choice = begin or recipe.start_from
    if choice is not None:
        if choice.checkpoint is None:
            raise InputError("start_from", "a checkpoint", "a recipe, not yet a trained network")
        start.begin(model, choice, start.load_weights(Path(choice.checkpoint))[1])
    return model


def restore(parts: dict[str, Any], recipe: MemberRecipe, folder: Path) -> int:
    """Bring the parts to where the training in `folder` stopped; epochs done. A new training begins
    at nought."""
    if not (folder / LAST).exists():
        return 0
    state = checkpoint.load(folder / LAST, recipe)
    for name, part in parts.items():
        part.load_state_dict(state[name])
    return int(state["epoch"])


def load_best(recipe: MemberRecipe, shapes: Shapes, folder: Path) -> Fitted:
    """The best network so far of a training in `folder`, on the CPU, ready to score."""
    state = checkpoint.load(folder / BEST, recipe)
    model = network.build(recipe, shapes)
    model.load_state_dict(state["model"])
    return Fitted(model.eval().requires_grad_(False), state["epoch"], state["figures"])


def judge(
    learner: Learner, inputs: Tensors, labels: Tensor, validation: Examples, group: Group
) -> dict[str, float]:
    """The validation set's figures, which the first process measures, on every process."""
    figures = None
    if group.leads:
        logits = logits_of(learner.averaged, inputs, group.where)  # (n,)
        loss = float(learner.loss_of(logits, labels))
        select_by = learner.recipe.select_by
        figures = validation_figures(logits.cpu().numpy(), validation.positive, loss, select_by)
    told: dict[str, float] = group.told(figures)
    return told


def seeded(where: torch.device, *entropy: int) -> torch.Generator:
    """A generator for one epoch's draws; dropout's generator is set alongside."""
    state = int(np.random.SeedSequence(entropy).generate_state(1, np.uint64)[0] >> 1)
    torch.manual_seed(state)
    return torch.Generator(where).manual_seed(state)


@torch.no_grad()
def logits_of(
    model: nn.Module, inputs: Tensors, where: torch.device, batch_size: int = SCORE_BATCH
) -> Float[Tensor, " n"]:
    """Logits of all rows, in float32."""
    model.eval()
    rows = len(next(iter(inputs.values())))
    parts = []
    for k in range(0, rows, batch_size):
        batch = [tensor[k : k + batch_size].to(where) for tensor in inputs.values()]
        parts.append(model(*batch).float())
    return torch.cat(parts)


def in_words(row: dict[str, float]) -> str:
    """An epoch's figures on one line."""
    return ", ".join(f"{name} {value:.4g}" for name, value in row.items())
