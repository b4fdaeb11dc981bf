"""No model is given thresholds on, or judged on, what its own training saw."""

from __future__ import annotations

from collections.abc import Sequence

from lenspipe.errors import InputError
from training.recipe import EnsembleRecipe, MemberRecipe, Recipe

LEARNT_FROM = ("train", "validation")
JUDGED_ON = ("calibration", "test")


def check_unseen(recipe: Recipe, members: Sequence[MemberRecipe] = ()) -> None:
    """InputError where a member learnt from a set, or from a side of the real objects, on which
    `recipe` chooses thresholds or is judged.

    members: of an ensemble; a member's recipe is checked against itself.
    """
    known = members if isinstance(recipe, EnsembleRecipe) else (recipe,)
    for member in known:
        for learnt in LEARNT_FROM:
            for own in JUDGED_ON:
                _check(recipe, own, member, learnt)


def _check(recipe: Recipe, own: str, member: MemberRecipe, learnt: str) -> None:
    whose = f"{member.name}'s {learnt}"
    seed = member.simulate_block(learnt)["seed"]
    if recipe.simulate_block(own)["seed"] == seed:
        raise InputError(
            f"{recipe.name}: splits.{own}.seed",
            "a seed that no member was trained on",
            f"{seed}, which is {whose}",
        )
    side, seen = real_side(recipe, own), real_side(member, learnt)
    if side is not None and side == seen:
        raise InputError(
            f"{recipe.name}: splits.{own}.{side[0]}",
            "real objects that no member was trained on",
            f"{side[1]}, which are {whose}",
        )


def real_side(recipe: Recipe, split: str) -> tuple[str, str] | None:
    """Key and value of the side that a set's real objects come from; None where it takes none."""
    from training.simulate.dataset import SimulateRecipe
    from training.simulate.photometry import PhotometryBlock

    table = isinstance(recipe, MemberRecipe) and recipe.task == "photometry"
    fields = (PhotometryBlock if table else SimulateRecipe).model_fields
    block = {name: field.default for name, field in fields.items()} | recipe.simulate_block(split)
    shares = ("lrg_rows",) if table else ("painted_fraction", "real_negative_fraction")
    if not block["data"] or not any(block[share] for share in shares):
        return None
    key = "side" if table else "hosts"
    return key, block[key]
