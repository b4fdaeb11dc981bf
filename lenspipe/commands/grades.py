"""`lenspipe grades …`: what people said of a run's candidates, from files, to files, in words."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lenspipe.commands.common import GradesPlace, RunFolder, print_fields
from lenspipe.errors import InputError

if TYPE_CHECKING:
    from lenspipe.run_directory import RunDirectory
    from lenspipe.serve.grades.store import GradeStore

app = typer.Typer(help="What people said of the candidates.", no_args_is_help=True)


@app.command("show")
def show(run: RunFolder, store: GradesPlace = None) -> None:
    """Say how much each person graded, how far they agree, and how good they are on hidden
    objects."""
    from lenspipe.serve.grades.summary import describe

    with _opened(_run(run), store, writable=False) as grades:
        print_fields(describe(grades))


@app.command("scheme")
def scheme(
    run: RunFolder,
    file: Annotated[
        Path | None, typer.Argument(metavar="FILE", help="YAML with the grades to use from now on.")
    ] = None,
    store: GradesPlace = None,
) -> None:
    """Show the grades that there are, or set them."""
    from lenspipe.serve.grades.scheme import load_scheme

    directory = _run(run)
    wanted = None if file is None else load_scheme(file)
    with _opened(directory, store, writable=wanted is not None) as grades:
        if wanted is not None:
            grades.set_scheme(wanted)
        found = grades.scheme()
    lines = [
        (g.name, f"key {g.key}, value {g.value:g}{', ' if g.label else ''}{g.label}")
        for g in found.grades
    ]
    print_fields([*lines, ("lens from", f"{found.threshold:g}")])


@app.command("hidden")
def hidden(
    run: RunFolder,
    file: Annotated[
        str, typer.Argument(metavar="FILE", help="CSV or Parquet: object_id, is_lens, kind.")
    ],
    store: GradesPlace = None,
) -> None:
    """Add training objects of known truth, to be mixed in among the candidates."""
    from lenspipe.serve.grades.exchange import hidden_of, read_rows

    directory = _run(run)
    objects = hidden_of(read_rows(file), _integers(directory))
    with _opened(directory, store) as grades:
        added = grades.add_hidden(objects)
    typer.echo(f"{added:,} new hidden objects of {len(objects):,}")


@app.command("export")
def export(
    run: RunFolder,
    file: Annotated[
        str, typer.Argument(metavar="FILE", help="Ends in .csv, .parquet, .vot or .fits.")
    ],
    table: Annotated[str, typer.Option(help="grade_events or grades.")] = "grade_events",
    store: GradesPlace = None,
) -> None:
    """Write all events, which `lenspipe grades import` takes, or the grades that follow from
    them."""
    from lenspipe.catalogue import graded
    from lenspipe.catalogue.formats import require_known, write_rows

    if table not in ("grade_events", "grades"):
        raise InputError("--table", "grade_events or grades", repr(table))
    require_known(file, "FILE")
    directory = _run(run)
    kind = graded.id_type_of(directory)
    with _opened(directory, store, writable=False) as grades:
        rows = (
            graded.events_table(grades.events(), kind)
            if table == "grade_events"
            else graded.grades_table(grades, graded.probabilities(directory), kind)
        )
    write_rows(rows.to_reader(), file, table)
    typer.echo(f"{rows.num_rows:,} rows in {file}")


@app.command("import")
def import_(
    run: RunFolder,
    file: Annotated[
        str,
        typer.Argument(
            metavar="FILE", help="CSV or Parquet: object_id, grade, comment; or events."
        ),
    ],
    grader: Annotated[
        str | None, typer.Option(help="Whose they are; of events: only this person's.")
    ] = None,
    store: GradesPlace = None,
) -> None:
    """Add grades that were given elsewhere; the same file counts once."""
    from lenspipe.catalogue.graded import probabilities
    from lenspipe.serve.grades.exchange import import_rows, read_rows

    directory = _run(run)
    rows = read_rows(file)
    with _opened(directory, store) as grades:
        done = import_rows(grades, rows, grader, _integers(directory))
        known = {*probabilities(directory), *(each.object_id for each in grades.hidden())}
    passed = f" ({done.overruled:,} of them overruled since)" if done.overruled else ""
    typer.echo(
        f"{done.stored:,} new events, {done.repeated:,} known before{passed}; "
        f"{len(done.object_ids - known):,} of {len(done.object_ids):,} objects are no candidates"
    )


@app.command("labels")
def labels(
    run: RunFolder,
    out: Annotated[str, typer.Argument(metavar="OUT", help="HDF5 file to write, .h5.")],
    lens: Annotated[
        list[str] | None, typer.Option(help="Grade that is a lens; repeatable.")
    ] = None,
    other: Annotated[list[str] | None, typer.Option(help="Grade that is none; repeatable.")] = None,
    votes: Annotated[int, typer.Option(min=1, help="Least number of votes.")] = 1,
    store: GradesPlace = None,
) -> None:
    """Write graded candidates as labelled stamps that `python -m training` takes."""
    from lenspipe.serve.grades.labels import Choice, write_labels

    directory = _run(run)
    with _opened(directory, store, writable=False) as grades:
        choice = Choice.of(grades.scheme(), lens or (), other or (), votes)
        done = write_labels(directory, grades, out, choice)
    typer.echo(
        f"{done.lenses:,} lenses and {done.others:,} others in {out}; "
        f"{done.without_stamp:,} labels without a stamp"
    )


def _run(run: str) -> RunDirectory:
    from lenspipe.run.status import open_run

    return open_run(run)[0]


def _integers(run: RunDirectory) -> bool | None:
    """Whether the survey's ids are integers; None where the run has no sources yet."""
    import pyarrow as pa

    from lenspipe.catalogue.graded import id_type_of

    kind = id_type_of(run)
    return None if kind is None else bool(pa.types.is_integer(kind))


def _opened(run: RunDirectory, store: str | None, writable: bool = True) -> GradeStore:
    from lenspipe.serve.grades.place import store_of

    return store_of(run, store, "--grades", writable=writable)
