"""No model is given thresholds on, or judged on, what its own training saw."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from lenspipe.errors import InputError
from training.recipe import EnsembleRecipe, MemberRecipe, Recipe

LEARNT_FROM = ("train", "validation", "arcs", "pool")
JUDGED_ON = ("calibration", "test")


def check_unseen(recipe: Recipe, members: Sequence[MemberRecipe] = ()) -> None:
    """InputError where a member learnt from a set, or from a side of the real objects, on which
    `recipe` chooses thresholds or is judged, and where it is judged on the side that its thresholds
    were chosen on.

    members: of an ensemble; a member's recipe is checked against itself. Those whose weights a
    member began with count as the member does.
    """
    known = members if isinstance(recipe, EnsembleRecipe) else (recipe,)
    for member in (origin for each in known for origin in lineage(each)):
        for learnt in learnt_from(member):
            for own in JUDGED_ON:
                _check(recipe, own, member, learnt)
    chosen, judged = (real_side(recipe, split) for split in JUDGED_ON)
    if judged is not None and judged == chosen:
        raise InputError(
            f"{recipe.name}: splits.test.{judged[0]}",
            "real objects that no threshold was chosen on",
            f"{judged[1]}, which are those of calibration",
        )


def learnt_from(member: MemberRecipe) -> tuple[str, ...]:
    """The sets that a member's weights depend on."""
    given = member.splits.given()
    return tuple(split for split in LEARNT_FROM if split in given)


def lineage(member: MemberRecipe) -> tuple[MemberRecipe, ...]:
    """A member, the one whose weights it began with, and so on. InputError: no such checkpoint."""
    begin = member.start_from
    if begin is None:
        return (member,)
    if begin.recipe is not None:
        return (member, *lineage(begin.recipe))
    from training.start import load_weights

    return (member, *lineage(load_weights(Path(begin.checkpoint or ""))[0]))


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
    # Real galaxies are sources of any lens.
    shares = ("lrg_rows",) if table else ("lens_fraction", "real_negative_fraction")
    arcs = block.get("content") == "arcs"
    if not block["data"] or not (arcs or any(block[share] for share in shares)):
        return None
    key = "side" if table else "hosts"
    return key, block[key]
