"""The commands of `python -m training`, each a few lines that call a module."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

from lenspipe.errors import LenspipeError
from training.recipe import EnsembleRecipe, MemberRecipe, load_ensemble, load_member, load_recipe

RecipeFile = Annotated[Path, typer.Argument(help="recipe (YAML)")]
Work = Annotated[Path, typer.Option(help="folder for intermediate files")]
Zoo = Annotated[Path, typer.Option(help="folder that the models go into")]
WORK, ZOO = Path("work"), Path("zoo")

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)


@app.command()
def simulate(
    recipe: RecipeFile,
    work: Work = WORK,
    split: Annotated[str | None, typer.Option(help="one set only")] = None,
    workers: Annotated[int, typer.Option(help="processes")] = os.cpu_count() or 1,
) -> None:
    """Simulate a recipe's sets."""
    from training import stages

    read = load_recipe(recipe)
    for name in [split] if split else read.splits.given():
        typer.echo(stages.simulate(read, name, stages.Workspace(work, workers=workers)))


@app.command()
def train(
    recipe: RecipeFile,
    work: Work = WORK,
    device: Annotated[str | None, typer.Option(help="cpu, cuda; default: a GPU if any")] = None,
) -> None:
    """Train one network, or go on where a training stopped."""
    from training import stages

    typer.echo(stages.train(load_member(recipe), stages.Workspace(work, device)))


@app.command()
def evaluate(
    recipe: RecipeFile,
    work: Work = WORK,
    zoo: Annotated[
        Path | None,
        typer.Option(help="with --real or --realism: folder of the model; else shipped"),
    ] = None,
    real: Annotated[bool, typer.Option("--real", help="judge on real pixels instead")] = False,
    realism: Annotated[bool, typer.Option("--realism", help="how real the mocks are")] = False,
    stamps: Annotated[
        int, typer.Option(min=8, help="with --real or --realism: how many to simulate")
    ] = 2000,
) -> None:
    """Judge a trained network or an ensemble on its test set, or on real pixels."""
    from training import pipeline, stages
    from training.evaluation import command

    read, place = load_recipe(recipe), stages.Workspace(work)
    folder = place.report(read)
    if real:
        typer.echo(command.judge_on_real_pixels(read, folder / "real", zoo, stamps))
    if realism:
        typer.echo(command.judge_realism(read, folder / "realism", zoo, stamps))
    if real or realism:
        return
    if isinstance(read, MemberRecipe):
        stages.judge_member(read, place)
    else:
        members = pipeline.members_beside(recipe, read)
        stages.judge_ensemble(read, members, stages.fit_blend(read, members, place), place)
    typer.echo(folder / "index.html")


@app.command()
def blend(recipe: RecipeFile, work: Work = WORK, zoo: Zoo = ZOO) -> None:
    """Fit an ensemble of trained members, and write its file."""
    from training import pipeline, stages

    read = load_ensemble(recipe)
    members = pipeline.members_beside(recipe, read)
    typer.echo(pipeline.make_ensemble(read, members, stages.Workspace(work), zoo))


@app.command()
def export(recipe: RecipeFile, work: Work = WORK, zoo: Zoo = ZOO) -> None:
    """Write a trained network with its card, or an ensemble with all its members."""
    from training import pipeline, stages

    read, place = load_recipe(recipe), stages.Workspace(work)
    members = (read,) if isinstance(read, MemberRecipe) else pipeline.members_beside(recipe, read)
    for member in members:
        typer.echo(stages.export_member(member, place, zoo).name)
    if isinstance(read, EnsembleRecipe):
        typer.echo(pipeline.make_ensemble(read, members, place, zoo))


@app.command()
def explain(
    recipe: RecipeFile,
    work: Work = WORK,
    rows: Annotated[int, typer.Option(min=1, help="stamps of each kind")] = 8,
) -> None:
    """Draw which pixels of test stamps spoke for a lens."""
    from training import stages
    from training.explain import draw_maps

    read, place = load_member(recipe), stages.Workspace(work)
    path = place.report(read) / "occlusion.png"
    typer.echo(draw_maps(place.graph(read), stages.examples(read, "test", place), rows, path))


def main() -> None:
    """Run the command line."""
    run(app)


def log_to_stderr() -> None:
    """Our own progress, and only what others warn of."""
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(message)s", stream=sys.stderr)
    logging.getLogger("training").setLevel(logging.INFO)


def run(command: typer.Typer | Callable[..., None]) -> None:
    """Run a command; a mistake of the user's is one line and exit status 2."""
    log_to_stderr()
    try:
        if isinstance(command, typer.Typer):
            command()
        else:
            typer.run(command)
    except LenspipeError as error:
        typer.echo(str(error), err=True)
        raise SystemExit(error.exit_status) from None
