"""A run's catalogue: `lenspipe query`, `cone`, `crossmatch`, `export`, and `serve`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from lenspipe.commands.common import (
    GradesPlace,
    OutFile,
    RunFolder,
    ShownRows,
    print_fields,
    print_or_write,
)
from lenspipe.errors import InputError

app = typer.Typer()


@app.command()
def query(
    run: RunFolder,
    sql: Annotated[
        str,
        typer.Argument(
            metavar="SELECT",
            help="Over scores, candidates, failures, grades, known_lenses, sources.",
        ),
    ],
    out: OutFile = None,
    rows: ShownRows = 40,
    timeout_s: Annotated[float, typer.Option(min=0.1, help="Longest time.")] = 60.0,
    memory_mb: Annotated[int, typer.Option(min=64, help="Most memory.")] = 2048,
    grades: GradesPlace = None,
) -> None:
    """Ask a run's tables by SQL."""
    from lenspipe.catalogue import query as asked
    from lenspipe.catalogue.formats import require_known
    from lenspipe.run.status import open_run

    if out is not None:
        require_known(out, "--out")
    found = asked.query(open_run(run)[0], sql, asked.query_limits(timeout_s, memory_mb), grades)
    print_or_write(found, out, rows, "query")


@app.command(context_settings={"ignore_unknown_options": True})
def cone(
    run: RunFolder,
    place: Annotated[
        list[str],
        typer.Argument(
            metavar="RA DEC RADIUS",
            help="Degrees or sexagesimal, also in quotes as one text, or a name that holds the "
            "position (J100024.0+021200); RADIUS in arcsec, or with its unit (2arcmin).",
        ),
    ],
    out: OutFile = None,
    rows: ShownRows = 40,
) -> None:
    """Find a run's scored sources around a position, the nearest first."""
    from lenspipe.catalogue.cone import Cone
    from lenspipe.catalogue.formats import require_known
    from lenspipe.catalogue.position import parse_place
    from lenspipe.catalogue.published import Published
    from lenspipe.run.status import open_run

    if out is not None:
        require_known(out, "--out")
    found = Published(open_run(run)[0]).cone(Cone(*parse_place(place)))
    print_or_write(found, out, rows, "cone")


@app.command()
def crossmatch(
    run: RunFolder,
    catalogue: Annotated[
        str,
        typer.Argument(
            metavar="CATALOGUE",
            help="VOTable, FITS, CSV, TSV, Parquet, a folder such as HATS, or lenscat.",
        ),
    ],
    radius: Annotated[str, typer.Option(help="In arcsec, or with its unit.")] = "2",
    every: Annotated[
        bool, typer.Option("--all", help="All sources within the radius, not the nearest alone.")
    ] = False,
    ra: Annotated[str | None, typer.Option(help="Its column of right ascension, degrees.")] = None,
    dec: Annotated[str | None, typer.Option(help="Its column of declination, degrees.")] = None,
    out: OutFile = None,
    rows: ShownRows = 40,
) -> None:
    """Find the rows of another catalogue among a run's scored sources."""
    from lenspipe.catalogue.crossmatch import crossmatch as match
    from lenspipe.catalogue.formats import require_known
    from lenspipe.catalogue.outside import open_outside
    from lenspipe.catalogue.position import parse_radius
    from lenspipe.catalogue.published import Published
    from lenspipe.run.status import open_run

    if out is not None:
        require_known(out, "--out")
    arcsec = 3600.0 * parse_radius(radius, "--radius")
    published = Published(open_run(run)[0])
    found = match(published, open_outside(catalogue, ra, dec), arcsec, every)
    print_or_write(found, out, rows, "crossmatch")


@app.command()
def export(
    run: RunFolder,
    file: Annotated[
        str, typer.Argument(metavar="FILE", help="Ends in .csv, .parquet, .vot, .fits or .reg.")
    ],
    table: Annotated[
        str,
        typer.Option(
            help="candidates, scores, failures, grades, grade_events, known_lenses or sources."
        ),
    ] = "candidates",
    acronym: Annotated[str, typer.Option(help="Before the candidates' names.")] = "",
    grades: GradesPlace = None,
) -> None:
    """Write a run's candidates, or another of its tables, to a file."""
    from lenspipe.catalogue.export import export as write
    from lenspipe.run.status import open_run
    from lenspipe.serve.grades.place import without_grades
    from lenspipe.telling.progress import make_progress

    directory = open_run(run)[0]
    written = write(directory, file, table, acronym, grades)
    looked_at = without_grades(directory, grades)
    if table == "candidates" and looked_at is not None:
        with make_progress() as progress:
            progress.message(
                f"no grades at {looked_at}: columns grade and votes are empty; --grades names "
                "another place"
            )
    typer.echo(f"{written:,} rows in {file}")


@app.command()
def serve(
    run: RunFolder,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0: any that is free.")] = 8080,
    tokens: Annotated[
        Path | None, typer.Option(help="YAML file `name: token` of those who may ask.")
    ] = None,
    timeout_s: Annotated[float, typer.Option(min=0.1, help="Most seconds of one query.")] = 60.0,
    memory_mb: Annotated[int, typer.Option(min=64, help="Most memory of one query.")] = 1024,
    queries: Annotated[int, typer.Option(min=1, help="Most that run at once.")] = 2,
    rows: Annotated[int, typer.Option(min=1, help="Most rows of one answer.")] = 100_000,
    grades: GradesPlace = None,
    blind: Annotated[
        bool, typer.Option("--blind", help="Without scores, each person in an order of their own.")
    ] = False,
    seed: Annotated[int, typer.Option(help="Of those orders.")] = 0,
    training_images: Annotated[
        Path | None,
        typer.Option(help="With --blind: HDF5 set of known truth, mixed in among the candidates."),
    ] = None,
    hidden_rate: Annotated[
        float, typer.Option(min=0.0, max=0.5, help="Share of those in what is shown.")
    ] = 0.05,
) -> None:
    """Serve a run: pages to look and grade, Simple Cone Search, TAP, JSON, metrics."""
    try:
        from lenspipe.serve.command import Service
    except ModuleNotFoundError as error:
        raise InputError("lenspipe serve", "pip install 'lenspipe[serve]'", error) from error
    from lenspipe.serve.query_process import QueryLimits
    from lenspipe.serve.shown import Manner

    limits = QueryLimits(timeout_s, memory_mb, queries, rows=rows)
    manner = Manner(blind, seed, hidden_rate)
    service = Service(run, host, port, tokens, limits, grades, manner, training_images)
    print_fields(service.describe())
    service.run()
