"""All recipes of a folder, from the simulation to the shipped models, in one go.

    python -m training.pipeline RECIPES --work WORK --zoo ZOO

Each stage keeps what it made in WORK: the same command goes on where it was stopped.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Annotated

import typer

from lenspipe.errors import InputError
from lenspipe.models.card import read_card
from training import stages
from training.blended import Blended
from training.cli import log_to_stderr, run
from training.evaluation.judge import in_words
from training.recipe import EnsembleRecipe, MemberRecipe, Recipe, load_member, load_recipe
from training.unseen import check_unseen, learnt_from, lineage
from training.workspace import Workspace

logger = logging.getLogger(__name__)


def make_all(recipes: Sequence[Recipe], work: Workspace, zoo: Path, trainers: int = 1) -> None:
    """Simulate every set, train every member, then blend, judge and export.

    trainers: networks that are trained at once, each in a process of its own. Small networks leave
    a large GPU idle between kernels, so three at once take little longer than one.
    """
    members = {r.name: r for r in recipes if isinstance(r, MemberRecipe)}
    ensembles = [r for r in recipes if isinstance(r, EnsembleRecipe)]
    for member in members.values():
        check_unseen(member)
    for ensemble in ensembles:
        check_unseen(ensemble, members_of(ensemble, members))
    with Trainers(work, trainers) as pool:
        for member in sorted(members.values(), key=lambda each: len(lineage(each))):
            for split in learnt_from(member):
                stages.simulate(member, split, work)
            pool.begin(member)
        for recipe in recipes:
            for split in ("calibration", "test"):
                stages.simulate(recipe, split, work)
    for member in members.values():
        card = stages.export_member(member, work, zoo)
        logger.info("%s: %s", card.name, in_words(card.metrics))
    for ensemble in ensembles:
        make_ensemble(ensemble, members_of(ensemble, members), work, zoo)


class Trainers:
    """Trains members in processes of their own, while the caller goes on with its work.

    Leaving the context waits for every training. One at a time is trained at once, in this process.
    """

    def __init__(self, work: Workspace, at_once: int) -> None:
        self._work = work
        self._pool = _spawning(at_once) if at_once > 1 else None
        self._begun: list[Future[Path]] = []

    def __enter__(self) -> Trainers:
        return self

    def begin(self, member: MemberRecipe) -> None:
        """Train `member`, or set it going; after all before it where it begins with another's
        weights."""
        if member.start_from is not None:
            self._wait()
        if self._pool is None:
            stages.train(member, self._work)
        else:
            self._begun.append(self._pool.submit(stages.train, member, self._work))

    def __exit__(self, *_: object) -> None:
        if self._pool is not None:
            with self._pool:
                self._wait()

    def _wait(self) -> None:
        for made in self._begun:
            made.result()


def _spawning(workers: int) -> ProcessPoolExecutor:
    return ProcessPoolExecutor(workers, mp_context=get_context("spawn"), initializer=log_to_stderr)


def make_ensemble(
    recipe: EnsembleRecipe, members: Sequence[MemberRecipe], work: Workspace, zoo: Path
) -> Path:
    """Blend, judge and write one ensemble of trained members. InputError where their networks do
    not lie in `zoo`, beside which the ensemble's file is to lie."""
    require_exported(members, zoo)
    blended = stages.fit_blend(recipe, members, work)
    metrics, scores = stages.judge_ensemble(recipe, members, blended, work)
    logger.info("%s: %s", recipe.name, in_words(metrics))
    real = stages.seen(recipe, members, work)
    int8 = _in_int8(recipe, members, blended, work, zoo) if recipe.int8 else {}
    path = stages.export_ensemble(recipe, blended, metrics, scores, real, zoo, int8)
    if recipe.cascade is not None:
        stages.time_cascade(recipe, recipe.cascade, path, work)
    return path


def require_exported(members: Sequence[MemberRecipe], zoo: Path) -> None:
    """InputError where a folder lacks the network of a member, or has one by another recipe."""
    for member in members:
        path = zoo / f"{member.name}.onnx"
        expected = f"the network of this recipe (python -m training export writes it to {zoo})"
        if not path.is_file():
            raise InputError(f"model {path}", expected, "none")
        if read_card(path).training.recipe_sha256 != member.sha256():
            raise InputError(f"model {path}", expected, "one by another recipe")


def _in_int8(
    recipe: EnsembleRecipe,
    members: Sequence[MemberRecipe],
    blended: Blended,
    work: Workspace,
    zoo: Path,
) -> dict[str, Path]:
    """The members that take their int8 form on CPUs: those that lose little by themselves, where
    the ensemble loses little with all of them."""
    made = {member.name: stages.export_int8(member, work, zoo)[0] for member in members}
    int8 = {name: path for name, path in made.items() if path is not None}
    if int8 and stages.judge_int8(recipe, members, blended, int8, work).accepted:
        return int8
    return {}


def members_of(recipe: EnsembleRecipe, known: dict[str, MemberRecipe]) -> tuple[MemberRecipe, ...]:
    """The recipes of an ensemble's members; InputError names one that is not there."""
    for name in recipe.members:
        if name not in known:
            there = ", ".join(sorted(known)) or "none"
            raise InputError(f"{recipe.name}: members", f"recipes of {there}", repr(name))
    return tuple(known[name] for name in recipe.members)


def members_beside(path: Path, recipe: EnsembleRecipe) -> tuple[MemberRecipe, ...]:
    """The members' recipes, which lie in the ensemble recipe's folder under the members' names."""
    return tuple(load_member(path.parent / f"{name}.yaml") for name in recipe.members)


def load_folder(folder: Path) -> tuple[Recipe, ...]:
    """Every recipe of a folder (`*.yaml`); a name that occurs twice is refused."""
    recipes = tuple(load_recipe(path) for path in sorted(folder.glob("*.yaml")))
    names = [recipe.name for recipe in recipes]
    if not names or len(set(names)) < len(names):
        raise InputError(f"recipes {folder}", "recipes with different names", names or "none")
    return recipes


def main(
    recipes: Annotated[Path, typer.Argument(help="folder of recipes (*.yaml)")],
    work: Annotated[Path, typer.Option(help="folder for intermediate files")],
    zoo: Annotated[Path, typer.Option(help="folder that the models go into")],
    device: Annotated[str | None, typer.Option(help="cpu, cuda; default: a GPU if any")] = None,
    workers: Annotated[int, typer.Option(help="simulation processes")] = os.cpu_count() or 1,
    trainers: Annotated[int, typer.Option(min=1, help="networks trained at once")] = 1,
    address: Annotated[
        str | None, typer.Option(help="Ray cluster that simulates; local: a Ray of its own")
    ] = None,
) -> None:
    """Make every model of a folder of recipes; goes on where it was stopped."""
    make_all(load_folder(recipes), Workspace(work, device, workers, address), zoo, trainers)


if __name__ == "__main__":
    run(main)
