"""Fine-tuning: begin with another training's weights, with some parts new and some left alone."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from lenspipe.errors import InputError
from training import checkpoint
from training.network import Finder
from training.recipe import MemberRecipe, StartFrom

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Begun:
    """Names of the weights that were loaded, and of those that are new."""

    loaded: tuple[str, ...]
    new: tuple[str, ...]


def load_weights(path: Path) -> tuple[MemberRecipe, dict[str, Tensor]]:
    """Recipe and weights of a checkpoint that holds a network's best epoch."""
    state = checkpoint.load_any(path)
    if "model" not in state:
        raise InputError(f"checkpoint {path}", "weights of a network", "none")
    return MemberRecipe.model_validate_json(state["recipe"]), _inner_names(state["model"])


def begin(model: nn.Module, choice: StartFrom, weights: Mapping[str, Tensor]) -> Begun:
    """Copy `weights` into `model`, but for the parts that `choice` replaces, and freeze.

    InputError where a weight has no place or another shape and is not replaced.
    """
    network = _inner(model)
    replaced = beginnings(model, choice.replace, "start_from.replace")
    own = network.state_dict()
    wanted = {name for name in own if not name.startswith(replaced)}
    given = {name for name in weights if not name.startswith(replaced)}
    _check_fit(own, weights, wanted | given)
    network.load_state_dict({name: weights[name] for name in wanted}, strict=False)
    freeze(network, choice.freeze)
    begun = Begun(tuple(sorted(wanted)), tuple(sorted(set(own) - wanted)))
    logger.info("loaded %d weights; new: %s", len(wanted), ", ".join(begun.new) or "none")
    return begun


def freeze(model: nn.Module, parts: Iterable[str]) -> None:
    """Take parts of a network out of the training."""
    network = _inner(model)
    frozen = beginnings(model, parts, "start_from.freeze")
    for name, parameter in network.named_parameters():
        parameter.requires_grad_(not name.startswith(frozen))
    if frozen and not any(p.requires_grad for p in network.parameters()):
        raise InputError("start_from.freeze", "weights that are left to train", "none")


def rest_frozen(model: nn.Module) -> None:
    """Keep layers whose weights are frozen as they are in use: their means do not move either."""
    for layer in model.modules():
        own = list(layer.parameters(recurse=False))
        if own and not any(parameter.requires_grad for parameter in own):
            layer.eval()


def beginnings(model: nn.Module, parts: Iterable[str], field: str) -> tuple[str, ...]:
    """What the names of the weights of each part begin with.

    `stem` and `head` are the submodules called so; without one, the first and the last layer that
    has a matrix of weights; a network with a trunk for each input has a stem in each. InputError
    for a part that names nothing.
    """
    network = _inner(model)
    names = list(network.state_dict())
    found: list[str] = []
    for part in parts:
        begun = _named_part(model, part) if part in ("stem", "head") else (part,)
        if not any(name.startswith(begun) for name in names):
            known = ", ".join(["stem", "head", *dict(network.named_children())])
            raise InputError(field, f"parts out of {known}", repr(part))
        found.extend(begun)
    return tuple(found)


def _named_part(model: nn.Module, part: str) -> tuple[str, ...]:
    network = _inner(model)
    if isinstance(getattr(network, part, None), nn.Module):
        return (f"{part}.",)
    layers = [
        name
        for name, layer in network.named_modules()
        if any(parameter.ndim > 1 for parameter in layer.parameters(recurse=False))
    ]
    if part == "head":
        return (f"{layers[-1]}.",)
    trunk, inputs = layers[0].partition(".")[0], _inputs(model)
    trunks = getattr(network, trunk)
    if inputs > 1 and isinstance(trunks, nn.ModuleList) and len(trunks) == inputs:
        ends = (f"{trunk}.{k}." for k in range(inputs))
        return tuple(next(f"{n}." for n in layers if n.startswith(end)) for end in ends)
    return (f"{layers[0]}.",)


def _inputs(model: nn.Module) -> int:
    return len(model.normalisations) if isinstance(model, Finder) else 1


def _check_fit(
    own: Mapping[str, Tensor], weights: Mapping[str, Tensor], names: Iterable[str]
) -> None:
    wrong = [
        f"{name} {_shape(weights.get(name))} for {_shape(own.get(name))}"
        for name in sorted(names)
        if _shape(weights.get(name)) != _shape(own.get(name))
    ]
    if wrong:
        more = f" and {len(wrong) - 1} more" if len(wrong) > 1 else ""
        raise InputError(
            "start_from.replace", "every part that does not fit", f"weights {wrong[0]}{more}"
        )


def _shape(tensor: Tensor | None) -> str:
    return "none" if tensor is None else str(tuple(tensor.shape))


def _inner(model: nn.Module) -> nn.Module:
    return model.network if isinstance(model, Finder) else model


def _inner_names(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix("network."): torch.as_tensor(t) for name, t in weights.items()}
