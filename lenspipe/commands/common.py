"""What several commands take, and how they print."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated

import typer

from lenspipe.storage.names import require_sound

if TYPE_CHECKING:
    import pyarrow as pa


def sound(field: str) -> Callable[[str], str]:
    """A path or URL of the command line as it is; InputError at `field` where it can be none."""

    def check(path: str) -> str:
        require_sound(path, field)
        return path

    return check


RunFolder = Annotated[
    str,
    typer.Argument(metavar="RUN", help="A run directory or its URL.", callback=sound("RUN")),
]
OutFile = Annotated[
    str | None, typer.Option(help="File instead: .csv, .parquet, .vot, .fits or .reg.")
]
ShownRows = Annotated[int, typer.Option(min=0, help="Most rows that are printed.")]
Fresh = Annotated[bool, typer.Option("--fresh", help="Begin anew; erases the run.")]
RetryFailed = Annotated[
    bool, typer.Option("--retry-failed", help="Try again what could not be read.")
]
WaitSeconds = Annotated[
    float, typer.Option(min=0.0, help="Seconds that another run of it is waited for.")
]
MaxCpus = Annotated[
    float, typer.Option(min=0.0, help="CPU slots without GPUs that the cluster may grow to.")
]
MaxGpus = Annotated[float, typer.Option(min=0.0, help="GPUs that the cluster may grow to.")]
GradesPlace = Annotated[
    str | None,
    typer.Option("--grades", help="SQLite file or postgresql:// URL; default: RUN/grades.sqlite."),
]


def print_or_write(found: pa.Table, out: str | None, rows: int, name: str) -> None:
    """Print the first `rows` rows, or write all of them to a file by its suffix."""
    from lenspipe.catalogue.formats import write_rows
    from lenspipe.catalogue.shown import show

    if out is None:
        typer.echo("\n".join(show(found, rows)))
        return
    write_rows(found.to_reader(), out, name, "--out")
    typer.echo(f"{found.num_rows:,} rows in {out}")


def print_fields(lines: list[tuple[str, str]]) -> None:
    """Lines (field, text), the texts below each other."""
    width = max((len(name) for name, _ in lines), default=0)
    for name, text in lines:
        typer.echo(f"{name:<{width}}  {text}")


def print_aligned(lines: list[list[str]]) -> None:
    """A table of cells, a blank line before it."""
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    typer.echo()
    for line in lines:
        padded = [f"{cell:<{width}}" for cell, width in zip(line, widths, strict=True)]
        typer.echo("  ".join(padded).rstrip())
