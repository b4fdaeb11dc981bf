"""A network in training: what one step does to its weights and to their running mean."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from training import losses, start
from training.recipe import MemberRecipe
from training.together import Group

Tensors = Mapping[str, Tensor]  # input name -> rows of it
TYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


class Learner:
    """model: the network. averaged: with the running mean of its weights, which is what is kept."""

    def __init__(self, recipe: MemberRecipe, model: nn.Module, group: Group) -> None:
        self.recipe, self.where = recipe, group.where
        if group.size > 1 and self.where.type == "cuda":
            # Means over the whole batch; gloo has no such layer, and CPUs take their shares' own.
            model = nn.SyncBatchNorm.convert_sync_batchnorm(model)  # type: ignore[no-untyped-call]
        self.model = channels_last(model.to(self.where))
        self.averaged = copy.deepcopy(self.model).eval().requires_grad_(False)
        self.loss_of = losses.build(recipe.loss.name, recipe.loss.parameters)
        groups = weight_groups(self.model, recipe.optimiser.weight_decay)
        self._decaying: list[nn.Parameter] = groups[0]["params"]
        self.optimiser = torch.optim.AdamW(groups, fused=self.where.type == "cuda")
        self._type = TYPES[precision(recipe, self.where)]
        # Without scaling, half precision's smallest numbers would round gradients to nought.
        self.scaler = torch.amp.GradScaler(self.where.type, enabled=self._type == torch.float16)
        self._pair = floating(self.averaged), floating(self.model)
        self._shared = group.wrap(self.model)

    @property
    def parts(self) -> dict[str, Any]:
        """What a resumed training needs, by name."""
        return {
            "model": self.model,
            "averaged": self.averaged,
            "optimiser": self.optimiser,
            "scaler": self.scaler,
        }

    def begin_epoch(self) -> None:
        """Dropout and batch normalisation as in training, but for frozen layers."""
        self._shared.train()
        start.rest_frozen(self.model)

    def step(
        self, batch: Tensors, labels: Float[Tensor, " b"], rate: float, done: int
    ) -> Float[Tensor, ""]:
        """One step at a learning rate; the batch's loss. done: steps before it."""
        set_rate(self.optimiser, rate)
        images = [in_order(tensor) for tensor in batch.values()]
        with torch.autocast(self.where.type, self._type, enabled=self._type != torch.float32):
            logits = self._shared(*images)  # (batch,)
        loss = self.loss_of(logits.float(), labels)
        self.optimiser.zero_grad(set_to_none=True)
        torch.autograd.backward(self.scaler.scale(loss))
        self.scaler.unscale_(self.optimiser)
        nn.utils.clip_grad_norm_(self.model.parameters(), self.recipe.optimiser.clip_norm)
        pull(self._decaying, self.recipe.optimiser.l2)
        self.scaler.step(self.optimiser)
        self.scaler.update()
        follow(*self._pair, self.recipe.ema_decay, done)
        return loss.detach()


def precision(recipe: MemberRecipe, where: torch.device) -> str:
    """Name of the type that the network computes in."""
    if recipe.precision != "auto":
        return recipe.precision
    return "bfloat16" if where.type == "cuda" else "float32"


def channels_last(model: nn.Module) -> nn.Module:
    """The same network with filters in memory as convolutions in bfloat16 and half precision take
    them, on CPUs and GPUs: a tenth to a third faster."""
    for parameter in model.parameters():
        parameter.data = in_order(parameter.data)
    return model


def in_order(tensor: Tensor) -> Tensor:
    """Images and filters with their channels innermost; other tensors as they are."""
    return tensor.contiguous(memory_format=torch.channels_last) if tensor.ndim == 4 else tensor


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


@torch.no_grad()
def pull(weights: list[nn.Parameter], l2: float) -> None:
    """Add l2 times the weights to their gradients: the gradient of l2/2 times their squares."""
    for weight in weights if l2 else ():
        if weight.grad is not None:
            weight.grad.add_(weight, alpha=l2)


def floating(model: nn.Module) -> list[Tensor]:
    """Weights, and the means and variances of batch normalisation, as they lie in memory."""
    return [tensor for tensor in model.state_dict().values() if tensor.is_floating_point()]


@torch.no_grad()
def follow(means: list[Tensor], weights: list[Tensor], decay: float, step: int) -> None:
    """Move the running means of the weights towards the weights; the first steps count for more."""
    kept = min(decay, (1 + step) / (10 + step)) if decay else 0.0
    # One kernel for all of them: a loop over small tensors would take as long as the training step.
    torch._foreach_lerp_(means, weights, 1.0 - kept)
