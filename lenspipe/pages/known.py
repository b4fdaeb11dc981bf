"""What the report tells of known lenses: how many were found, and where the others were lost."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from lenspipe.catalogue.known import FATES, Known
from lenspipe.proportion import clopper_pearson

MOST_MISSED = 200  # listed one by one
_CELL_DEG = 58.6  # side of a HEALPix cell of order 0; it halves with each order
_WORDS = {
    "below_threshold": "scored below the threshold",
    "failed": "failed",
    "rejected": "rejected by the photometry network",
    "cut": "cut",
    "not_in_catalogue": "not in the catalogue",
    "not_selected": "not selected, nobody knows why",
}


@dataclass(frozen=True)
class Share:
    """A recall. low, high: its 95% interval (Clopper and Pearson)."""

    hits: int
    trials: int
    low: float
    high: float


@dataclass(frozen=True)
class Missed:
    """A known lens that is no candidate. why: how far it came."""

    name: str
    about: str
    why: str
    score: float | None
    rank: int | None
    separation_arcsec: float | None


@dataclass(frozen=True)
class KnownSection:
    """What the page shows. cell: side of the footprint's cells, with its unit. losses: how many
    lenses were lost where. more: missed lenses that are not listed."""

    listed: int
    in_footprint: int
    radius_arcsec: float
    order: int
    cell: str
    of_scored: Share
    of_footprint: Share
    losses: list[tuple[str, int]]
    missed: list[Missed]
    more: int


def known_section(known: Known) -> KnownSection:
    """The section of a run's known lenses; the missed ones that came nearest to the threshold
    first."""
    side_deg = _CELL_DEG / 2**known.order
    missed = list(_missed(known.table))
    return KnownSection(
        listed=known.listed,
        in_footprint=known.in_footprint,
        radius_arcsec=known.radius_arcsec,
        order=known.order,
        cell=f"{side_deg:.2g}°" if side_deg >= 1 else f"{60 * side_deg:.2g}′",
        of_scored=_share(known.recovered, known.scored),
        of_footprint=_share(known.recovered, known.in_footprint),
        losses=list(_losses(known.table)),
        missed=missed[:MOST_MISSED],
        more=max(0, len(missed) - MOST_MISSED),
    )


def _share(hits: int, trials: int) -> Share:
    return Share(hits, trials, *clopper_pearson(hits, trials))


def _losses(table: pa.Table) -> Iterator[tuple[str, int]]:
    counted = Counter(table["fate"].to_pylist())
    for fate in FATES:
        if fate in _WORDS and counted[fate]:
            yield _WORDS[fate], counted[fate]


def _missed(table: pa.Table) -> Iterator[Missed]:
    left = table.filter(pc.not_equal(table["fate"], "candidate"))
    order = {fate: k for k, fate in enumerate(FATES)}
    rows = sorted(left.to_pylist(), key=lambda row: (order[row["fate"]], row["rank"] or 0))
    for row in rows:
        reason = (row["reason"] or "").replace("_", " ")
        why = _WORDS[row["fate"]] + (f": {reason}" if reason else "")
        about = ", ".join(filter(None, [row["type"], row["grade"]]))
        yield Missed(row["name"], about, why, row["score"], row["rank"], row["separation_arcsec"])
