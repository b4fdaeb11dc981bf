"""Checkpoints: whole or absent, and of one recipe. Read with weights alone, nothing unpickled."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from lenspipe.errors import InputError
from training.recipe import MemberRecipe


def save(state: dict[str, Any], path: Path) -> None:
    """Write a checkpoint that is either whole or absent."""
    aside = path.with_suffix(".part")
    torch.save(state, aside)
    aside.replace(path)


def load(path: Path, recipe: MemberRecipe) -> dict[str, Any]:
    """A checkpoint of this very recipe; InputError where it is another's."""
    state = load_any(path)
    found = MemberRecipe.model_validate_json(state["recipe"])
    if found.sha256() != recipe.sha256():
        raise InputError(f"checkpoint {path}: recipe", recipe.sha256()[:16], found.sha256()[:16])
    return state


def load_any(path: Path) -> dict[str, Any]:
    """A checkpoint of whatever recipe. InputError: absent, or no checkpoint."""
    try:
        state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise InputError(f"checkpoint {path}", "a trained network", "none") from None
    except Exception as error:
        raise InputError(f"checkpoint {path}", "a checkpoint of a training", error) from error
    if not isinstance(state, dict) or "recipe" not in state:
        raise InputError(f"checkpoint {path}", "a checkpoint of a training", "another file")
    return state
