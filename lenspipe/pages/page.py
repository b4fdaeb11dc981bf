"""What the HTML pages share: how templates are rendered, and a stamp with its caption."""

from __future__ import annotations

from dataclasses import dataclass

from jinja2 import Environment, PackageLoader, StrictUndefined

from lenspipe.errors import printable


@dataclass(frozen=True)
class Stamp:
    """One stamp of a mosaic. rank: from 1, the best first. score, probability: None where the
    object has none. picture: data URI, or None where no pixels could be read. note: shown below."""

    rank: int
    object_id: str
    score: float | None
    probability: float | None
    picture: str | None
    note: str = ""


def page_environment() -> Environment:
    """The package's templates, with the filters that they use; a name that is missing raises."""
    environment = Environment(
        loader=PackageLoader("lenspipe.pages"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=lambda value: printable(value) if type(value) is str else value,
    )
    environment.filters["number"] = lambda value: f"{value:,}"
    environment.filters["percent"] = percent
    return environment


def percent(part: int, whole: int) -> str:
    """`part` of `whole` as text, with a digit that says something even where it is little."""
    if not whole:
        return "–"
    share = 100 * part / whole
    return f"{share:.1f}%" if share >= 0.1 or not part else f"{share:.1g}%"
