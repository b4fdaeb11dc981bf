"""The shipped file of what a recipe makes, opened for judging."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from jaxtyping import Float32

from lenspipe.models.ensemble import Ensemble, load_ensemble
from training.recipe import Recipe


def open_subject(recipe: Recipe, zoo: Path | None, threads: int = 1) -> Ensemble:
    """The ensemble or network named as the recipe: in the folder `zoo`, else a shipped one."""
    if zoo is None:
        return load_ensemble(recipe.name, provider="cpu", threads=threads)
    suffix = "yaml" if recipe.task == "ensemble" else "onnx"
    path = str((zoo / f"{recipe.name}.{suffix}").absolute())
    return load_ensemble(path, provider="cpu", threads=threads)


def seen_by(ensemble: Ensemble) -> frozenset[str]:
    """Names of the real objects that the making of an ensemble or of its members saw."""
    cards = [member.card for member in ensemble.members]
    spec = ensemble.description.spec
    return frozenset(spec.seen).union(*(card.training.real_objects for card in cards))


def scores_of(
    ensemble: Ensemble, images: dict[str, Float32[np.ndarray, "n band y x"]]
) -> Float32[np.ndarray, " n"]:
    """Scores with every member asked."""
    return ensemble.score(images, full=True).score
