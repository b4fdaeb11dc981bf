"""The sets that a network's weights depend on, as its card tells them.

They are written down when it was trained; a set that is made anew later is not what it learnt from.
"""

from __future__ import annotations

import json
from typing import Any, get_args

from pydantic import TypeAdapter

from lenspipe.errors import InputError
from lenspipe.models.card import LearntSet, LearntUse
from training import mining
from training.data import rows_in
from training.recipe import MemberRecipe
from training.unseen import learnt_from, lineage
from training.workspace import Workspace, known_sha256, set_file, write_whole

RECORD = "learnt.json"
BEGUN = "begun.json"  # use of a set -> its SHA-256, of a training that began
_SETS: TypeAdapter[tuple[LearntSet, ...]] = TypeAdapter(tuple[LearntSet, ...])


def learnt_sets(recipe: MemberRecipe, work: Workspace) -> tuple[LearntSet, ...]:
    """A member's own sets, then those of the networks whose weights it began with."""
    return tuple(found for origin in lineage(recipe) for found in _own(origin, work))


def write_learnt(recipe: MemberRecipe, work: Workspace) -> None:
    """Keep what a network that was just trained learnt from."""
    write_whole(work.member(recipe) / RECORD, _SETS.dump_json(_found(recipe, work)).decode())


def refuse_other_sets(recipe: MemberRecipe, work: Workspace) -> None:
    """InputError where a training that began on other sets would go on with these; a training that
    has not begun is noted.

    The folder is the recipe's, and another version of the generator or of the real data makes
    another set of the same recipe.
    """
    now = {use: known_sha256(set_file(recipe, use, work)) for use in learnt_from(recipe)}
    note = work.member(recipe) / BEGUN
    if not note.exists():
        note.parent.mkdir(parents=True, exist_ok=True)
        write_whole(note, json.dumps(now))
        return
    before = json.loads(note.read_text(encoding="utf-8"))
    for use, sha256 in now.items():
        if before.get(use) != sha256:
            raise InputError(
                f"{recipe.name}: set {use}",
                f"SHA-256 {before.get(use)}, on which the training in {note.parent} began (without "
                "that folder it begins anew)",
                sha256,
            )


def _own(recipe: MemberRecipe, work: Workspace) -> tuple[LearntSet, ...]:
    kept = work.member(recipe) / RECORD
    return _SETS.validate_json(kept.read_bytes()) if kept.exists() else _found(recipe, work)


def _found(recipe: MemberRecipe, work: Workspace) -> tuple[LearntSet, ...]:
    return tuple(_set(recipe, use, work) for use in get_args(LearntUse) if _uses(recipe, use))


def _uses(recipe: MemberRecipe, use: Any) -> bool:
    return use in learnt_from(recipe)


def _set(recipe: MemberRecipe, use: LearntUse, work: Workspace) -> LearntSet:
    path = set_file(recipe, use, work)
    sha256, n = known_sha256(path), rows_in(path)
    taken = _mined(recipe, work, sha256) if use == "pool" else n
    return LearntSet(recipe=recipe.name, use=use, name=path.stem, sha256=sha256, n=n, n_taken=taken)


def _mined(recipe: MemberRecipe, work: Workspace, sha256: str) -> int:
    """Rows of the pool that all rounds took. InputError where another pool was looked in."""
    record = work.member(recipe) / mining.RECORD
    if not record.exists():
        raise InputError(f"{recipe.name}: mined rows", f"a record {record}", "none")
    told = mining.pool_of(record.parent)
    if told != sha256:
        raise InputError(f"{recipe.name}: set pool", f"SHA-256 {told}, which was mined", sha256)
    return sum(len(done["rows"]) for done in mining.read_record(record.parent))
