"""What a recipe asks for by name is there, and takes the parameters: found before anything costly.

A recipe alone says nothing of the pixels: bands and sizes are checked where a set is read.
"""

from __future__ import annotations

from collections.abc import Callable, Set
from functools import partial

from lenspipe.errors import InputError
from training import augmentations, blend, losses, network
from training.data import Examples
from training.recipe import EnsembleRecipe, MemberRecipe, Named, Recipe

DRAWN_FROM = ("train", "pool")  # the sets whose sources training draws by kind


def check_sound(recipe: Recipe) -> None:
    """InputError names the key of what is unknown, or of a parameter that will not do."""
    if isinstance(recipe, EnsembleRecipe):
        blend.parse(recipe.blender.name, recipe.blender.parameters)
        return
    network.check_architecture(recipe)
    losses.parse(recipe.loss.name, recipe.loss.parameters)
    augmentations.parse(recipe.augmentation.in_order())
    _check_normalisations(recipe)
    _check_batch(recipe)
    if recipe.start_from is not None and recipe.start_from.recipe is not None:
        _within("start_from.recipe", partial(check_sound, recipe.start_from.recipe))


def check_kinds(recipe: MemberRecipe, *sets: Examples) -> None:
    """InputError where a recipe weighs, or lays arcs on, a kind of source that is in none of the
    sets that training draws from."""
    every = {str(kind) for one in sets for kind in one.kinds}
    others = {str(kind) for one in sets for kind in one.kinds[~one.positive]}
    _check_asked(recipe, every, others)


def check_simulated_kinds(recipe: MemberRecipe) -> None:
    """`check_kinds` before there is a set: InputError where the recipe's block `simulate` makes
    no source of a kind."""
    from training.simulate.dataset import kinds_of, parse_recipe

    splits = [split for split in DRAWN_FROM if split in recipe.splits.given()]
    made = [kinds_of(parse_recipe(recipe.simulate_block(split))) for split in splits]
    others = {kind for _, negatives in made for kind in negatives}
    _check_asked(recipe, others.union(*(lenses for lenses, _ in made)), others)


def _check_asked(recipe: MemberRecipe, every: Set[str], others: Set[str]) -> None:
    asked = {
        "sampling.kinds": (tuple(recipe.sampling.kinds) if recipe.sampling else (), every),
        "merging.hosts": (recipe.merging.hosts if recipe.merging else (), others),
    }
    for field, (kinds, known) in asked.items():
        if unknown := sorted(set(kinds) - known):
            raise InputError(field, f"kinds out of {', '.join(sorted(known))}", ", ".join(unknown))


def _check_normalisations(recipe: MemberRecipe) -> None:
    if isinstance(recipe.normalisation, Named):
        network.parse_normalisation(recipe.normalisation)
        return
    for name, own in (recipe.normalisation or {}).items():
        _within(f"normalisation.{name}", partial(network.parse_normalisation, own))


def _check_batch(recipe: MemberRecipe) -> None:
    rows = recipe.simulate_block("train").get("n")
    if isinstance(rows, int):
        check_batch(recipe, rows)


def check_batch(recipe: MemberRecipe, rows: int) -> None:
    """InputError where a batch is larger than the training set."""
    if recipe.batch_size > rows:
        raise InputError("batch_size", f"at most {rows}, the training set", recipe.batch_size)


def _within(where: str, check: Callable[[], object]) -> None:
    try:
        check()
    except InputError as error:
        raise InputError(f"{where}: {error.field}", error.expected, error.found) from error
