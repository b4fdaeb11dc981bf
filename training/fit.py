"""Fit one network to one training set: on a CPU or one GPU, resumable, the same for the same seed.

Every epoch draws from its own seed, so a run that is resumed after epoch k goes on as if it had
never stopped; on a CPU with the same number of threads the weights are equal bit for bit.
"""

from __future__ import annotations

import copy
import csv
import logging
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from lenspipe.errors import InputError
from training import losses, network
from training.architectures.layers import Shapes
from training.augment import augment
from training.data import Examples
from training.metrics import Curve
from training.recipe import Augmentation, MemberRecipe, Schedule

LAST, BEST, LOG = "last.pt", "best.pt", "log.csv"
SCORE_BATCH = 1024
Tensors = Mapping[str, Tensor]  # input name -> rows of it
logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Fitted:
    """A network after training, with the weights of its best epoch."""

    model: nn.Module
    epoch: int
    validation_loss: float


def fit(
    recipe: MemberRecipe,
    train: Examples,
    validation: Examples,
    folder: Path,
    *,
    device: str | None = None,
    stop_after: int | None = None,
) -> Fitted:
    """Train until the recipe's epochs or its patience are spent; go on from `folder` if begun.

    device: `cpu`, `cuda` …; default: a GPU where there is one. stop_after: end this call early,
    after so many epochs in all, to be resumed by a later one.
    """
    folder.mkdir(parents=True, exist_ok=True)
    where = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    torch.manual_seed(recipe.seed)
    model = network.build(recipe, train.shapes).to(where)
    averaged = copy.deepcopy(model).eval().requires_grad_(False)
    loss_of = losses.build(recipe.loss.name, recipe.loss.parameters)
    groups = weight_groups(model, recipe.optimiser.weight_decay)
    optimiser = torch.optim.AdamW(groups, fused=where.type == "cuda")
    steps = max(1, len(train) // recipe.batch_size)
    inputs, labels = place(train, where)  # name: (n, band, y, x) or (n, feature); (n,)
    held_inputs, held_labels = place(validation, where)

    means, weights = floating(averaged), floating(model)
    parts: dict[str, nn.Module | torch.optim.Optimizer] = {
        "model": model,
        "averaged": averaged,
        "optimiser": optimiser,
    }
    begun, best, stale = restore(parts, recipe, folder)

    for epoch in range(begun, min(recipe.epochs, stop_after or recipe.epochs)):
        if stale >= recipe.patience:
            break
        started = time.perf_counter()
        draws = seeded(recipe.seed, epoch, where)
        order = torch.randperm(len(train), generator=draws, device=where)
        model.train()
        total = torch.zeros((), device=where)
        for step in range(steps):
            done = epoch * steps + step
            rows = order[step * recipe.batch_size : (step + 1) * recipe.batch_size]
            fraction = learning_rate(recipe.schedule, done / (steps * recipe.epochs))
            set_rate(optimiser, recipe.optimiser.learning_rate * fraction)
            batch, target = take(inputs, rows, where), labels[rows]
            if train.specs:
                batch = augment_alike(batch, recipe.augmentation, draws)
            with torch.autocast(where.type, torch.bfloat16, enabled=where.type == "cuda"):
                logits = model(*batch.values())  # (batch,)
            loss = loss_of(logits.float(), target)
            optimiser.zero_grad(set_to_none=True)
            torch.autograd.backward(loss)
            nn.utils.clip_grad_norm_(model.parameters(), recipe.optimiser.clip_norm)
            optimiser.step()
            follow(means, weights, recipe.ema_decay, done)
            total += loss.detach()

        held = logits_of(averaged, held_inputs, where)  # (n,)
        held_loss = float(loss_of(held, held_labels))
        improved = held_loss < best
        best, stale = (held_loss, 0) if improved else (best, stale + 1)
        kept: dict[str, Any] = {
            "recipe": recipe.model_dump_json(),
            "epoch": epoch + 1,
            "best": best,
        }
        if improved:
            save({**kept, "model": averaged.state_dict()}, folder / BEST)
        row = log_row(epoch + 1, float(total) / steps, held_loss, held, validation)
        append_log(folder / LOG, {**row, "seconds": round(time.perf_counter() - started, 2)})
        logger.info("%s %s", recipe.name, row)
        kept.update({key: part.state_dict() for key, part in parts.items()}, stale=stale)
        save(kept, folder / LAST)
    return load_best(recipe, train.shapes, folder)


def restore(
    parts: Mapping[str, nn.Module | torch.optim.Optimizer], recipe: MemberRecipe, folder: Path
) -> tuple[int, float, int]:
    """Bring the parts to where the training in `folder` stopped; epochs done, best validation loss,
    epochs since it. A new training begins at nought."""
    if not (folder / LAST).exists():
        return 0, float("inf"), 0
    state = load_checkpoint(folder / LAST, recipe)
    for name, part in parts.items():
        part.load_state_dict(state[name])
    return int(state["epoch"]), float(state["best"]), int(state["stale"])


def load_best(recipe: MemberRecipe, shapes: Shapes, folder: Path) -> Fitted:
    """The best network so far of a training in `folder`, on the CPU, ready to score."""
    state = load_checkpoint(folder / BEST, recipe)
    model = network.build(recipe, shapes)
    model.load_state_dict(state["model"])
    return Fitted(model.eval().requires_grad_(False), state["epoch"], state["best"])


def weight_groups(model: nn.Module, decay: float) -> list[dict[str, Any]]:
    """Weights of layers decay; biases and normalisations do not."""
    parameters = [p for p in model.parameters() if p.requires_grad]
    return [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": decay},
        {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
    ]


def set_rate(optimiser: torch.optim.Optimizer, rate: float) -> None:
    """The learning rate of the next step."""
    for group in optimiser.param_groups:
        group["lr"] = rate


def learning_rate(schedule: Schedule, progress: float) -> float:
    """Fraction of the full learning rate at `progress` (0 to 1) of the training.

    one_cycle: Smith & Topin 2017, arXiv:1708.07120.
    """
    if schedule.name == "constant":
        return 1.0
    rise = schedule.warmup if schedule.name == "one_cycle" else 0.0
    if progress < rise:
        return 0.04 + 0.96 * progress / rise
    fall = (progress - rise) / (1.0 - rise)
    return float(0.5 * (1.0 + np.cos(np.pi * fall)))


def seeded(seed: int, epoch: int, where: torch.device) -> torch.Generator:
    """A generator for one epoch's draws; dropout's generator is set alongside."""
    entropy = int(np.random.SeedSequence([seed, epoch]).generate_state(1, np.uint64)[0] >> 1)
    torch.manual_seed(entropy)
    return torch.Generator(where).manual_seed(entropy)


def place(examples: Examples, where: torch.device) -> tuple[Tensors, Float[Tensor, " n"]]:
    """Inputs on the device where they take at most half of its free memory, else where they are;
    labels on the device."""
    inputs = {name: torch.from_numpy(array) for name, array in examples.inputs.items()}
    labels = torch.from_numpy(examples.labels.astype(np.float32)).to(where)
    size = sum(tensor.nbytes for tensor in inputs.values())
    if where.type == "cuda" and size < torch.cuda.mem_get_info(where)[0] // 2:
        inputs = {name: tensor.to(where) for name, tensor in inputs.items()}
    return inputs, labels


def take(inputs: Tensors, rows: Tensor, where: torch.device) -> Tensors:
    """A batch on the device."""
    return {
        name: tensor[rows.to(tensor.device)].to(where, non_blocking=True)
        for name, tensor in inputs.items()
    }


def augment_alike(batch: Tensors, choice: Augmentation, generator: torch.Generator) -> Tensors:
    """Another view of each stamp, every input of a source turned by the same draw."""
    state, changed = generator.get_state(), {}
    for name, images in batch.items():
        generator.set_state(state)
        changed[name] = augment(images, choice, generator)
    return changed


def floating(model: nn.Module) -> list[Tensor]:
    """Weights, and the means and variances of batch normalisation, as they lie in memory."""
    return [tensor for tensor in model.state_dict().values() if tensor.is_floating_point()]


@torch.no_grad()
def follow(means: list[Tensor], weights: list[Tensor], decay: float, step: int) -> None:
    """Move the running means of the weights towards the weights; the first steps count for more."""
    kept = min(decay, (1 + step) / (10 + step)) if decay else 0.0
    # One kernel for all of them: a loop over small tensors would take as long as the training step.
    torch._foreach_lerp_(means, weights, 1.0 - kept)


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


def log_row(
    epoch: int, loss: float, held_loss: float, held: Tensor, validation: Examples
) -> dict[str, float]:
    """One line of the log: losses, and the figures that matter on the validation set."""
    curve = Curve(held.cpu().numpy(), validation.positive)
    return {
        "epoch": epoch,
        "train_loss": round(loss, 6),
        "validation_loss": round(held_loss, 6),
        "auroc": round(curve.auroc(), 6),
        "tpr_at_fpr_0.01": round(curve.tpr(int(0.01 * curve.n_negatives)), 6),
    }


def append_log(path: Path, row: dict[str, float]) -> None:
    """Add a line to the log, and the names of its columns to a new one."""
    new = not path.exists()
    with path.open("a", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, fieldnames=list(row))
        if new:
            writer.writeheader()
        writer.writerow(row)


def save(state: dict[str, Any], path: Path) -> None:
    """Write a checkpoint that is either whole or absent."""
    aside = path.with_suffix(".part")
    torch.save(state, aside)
    aside.replace(path)


def load_checkpoint(path: Path, recipe: MemberRecipe) -> dict[str, Any]:
    """A checkpoint of this very recipe; InputError where it is another's."""
    try:
        state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise InputError(f"checkpoint {path}", "a trained network", "none") from None
    found = MemberRecipe.model_validate_json(state["recipe"])
    if found.sha256() != recipe.sha256():
        raise InputError(f"checkpoint {path}: recipe", recipe.sha256()[:16], found.sha256()[:16])
    return state
