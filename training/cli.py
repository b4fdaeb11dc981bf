"""The commands of `python -m training`, each a few lines that call a module."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Literal

import typer

from lenspipe.errors import InputError, LenspipeError
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
    address: Annotated[
        str | None, typer.Option(help="Ray cluster instead of processes; local: a Ray of its own")
    ] = None,
    written: Annotated[
        Literal["hdf5", "zarr"], typer.Option("--format", help="of sets of stamps")
    ] = "hdf5",
) -> None:
    """Simulate a recipe's sets, or go on where a simulation stopped."""
    from training import stages
    from training.workspace import Workspace

    read = load_recipe(recipe)
    place = Workspace(work, workers=workers, address=address, zarr=written == "zarr")
    for name in [split] if split else read.splits.given():
        typer.echo(stages.simulate(read, name, place))


@app.command()
def train(
    recipe: RecipeFile,
    work: Work = WORK,
    device: Annotated[str | None, typer.Option(help="cpu, cuda; default: a GPU if any")] = None,
) -> None:
    """Train one network, or go on where a training stopped.

    On several GPUs: torchrun --nproc-per-node N -m training train RECIPE.
    """
    from training import stages
    from training.workspace import Workspace

    graph = stages.train(load_member(recipe), Workspace(work, device))
    if leads():
        typer.echo(graph)


@app.command()
def mine(
    recipe: RecipeFile,
    work: Work = WORK,
    device: Annotated[str | None, typer.Option(help="cpu, cuda; default: a GPU if any")] = None,
) -> None:
    """Train in rounds of hard-negative mining, or go on; says what each round found."""
    from training import mining, stages
    from training.workspace import Workspace

    read, place = load_member(recipe), Workspace(work, device)
    if read.mining is None:
        raise InputError("mining", "a block that says how many rounds of what", "none")
    stages.train(read, place)
    for told in mining.in_words(place.member(read)) if leads() else ():
        typer.echo(told)


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
    from training.workspace import Workspace

    read, place = load_recipe(recipe), Workspace(work)
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
    from training import pipeline
    from training.workspace import Workspace

    read = load_ensemble(recipe)
    members = pipeline.members_beside(recipe, read)
    typer.echo(pipeline.make_ensemble(read, members, Workspace(work), zoo))


@app.command()
def export(
    recipe: RecipeFile,
    work: Work = WORK,
    zoo: Zoo = ZOO,
    half: Annotated[bool, typer.Option(help="in half precision too, for GPUs")] = False,
    int8: Annotated[
        bool, typer.Option(help="in int8 too, for CPUs, where that is no loss")
    ] = False,
) -> None:
    """Write a trained network with its card, or an ensemble with all its members."""
    from training import pipeline, stages
    from training.workspace import Workspace

    read, place = load_recipe(recipe), Workspace(work)
    members = (read,) if isinstance(read, MemberRecipe) else pipeline.members_beside(recipe, read)
    for member in members:
        typer.echo(stages.export_member(member, place, zoo).name)
        if half:
            typer.echo(stages.export_half(member, place, zoo))
        if int8 and isinstance(read, MemberRecipe):
            path, verdict = stages.export_int8(member, place, zoo)
            typer.echo(path or f"{member.name}: no int8, {verdict.reason}")
    if isinstance(read, EnsembleRecipe):
        wanted = read.model_copy(update={"int8": read.int8 or int8})
        typer.echo(pipeline.make_ensemble(wanted, members, place, zoo))


@app.command()
def explain(
    recipe: RecipeFile,
    work: Work = WORK,
    rows: Annotated[int, typer.Option(min=1, help="stamps of each kind")] = 8,
) -> None:
    """Draw which pixels of test stamps spoke for a lens."""
    from training import stages
    from training.explain import draw_maps
    from training.workspace import Workspace

    read, place = load_member(recipe), Workspace(work)
    path = place.report(read) / "occlusion.png"
    typer.echo(draw_maps(place.graph(read), stages.examples(read, "test", place), rows, path))


def leads() -> bool:
    """Whether this process is the first of those that a launcher started, or the only one."""
    return os.environ.get("RANK", "0") == "0"


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
