"""What a run made of each known lens: found from the run's files, and from the catalogue for those
lenses of which the run's files tell nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from jaxtyping import Bool, Float64, Int64

from lenspipe.catalogue import scores
from lenspipe.catalogue.candidates import Rule, array_of, open_candidates
from lenspipe.catalogue.crossmatch import match_slab
from lenspipe.catalogue.known import LISTED, Known, KnownList, known_schema
from lenspipe.catalogue.partitions import MAX_ORDER
from lenspipe.catalogue.places import HEALPIX, add_counts
from lenspipe.catalogue.published import Published
from lenspipe.healpix import healpix_29
from lenspipe.run_directory import STAGES, RunDirectory
from lenspipe.sky import pairs_within
from lenspipe.storage.external_sort import stream

FINEST_ORDER = 10  # cells of 3.4 arcmin
# On the mean of the cells that hold any: with fewer, cells inside the survey would be empty.
ROWS_PER_CELL = 16


class Left(Protocol):
    """Where a source of the catalogue left the line; see `lenspipe.select.lookup.Removed`."""

    @property
    def object_id(self) -> Any:
        """The source."""

    @property
    def separation_arcsec(self) -> float | None:
        """How far it is from the position."""

    @property
    def left(self) -> str:
        """One of `known.FATES`."""

    @property
    def reason(self) -> str | None:
        """The cut, or why nobody knows."""


# Positions (ra, dec in degrees) and a radius (arcsec) -> what became of a source there.
Ask = Callable[[Float64[np.ndarray, " n"], Float64[np.ndarray, " n"], float], Sequence[Left | None]]


@dataclass
class _Lens:
    """What is found of one known lens."""

    fate: str = "not_selected"
    reason: str | None = None
    object_id: Any = None
    separation_arcsec: float | None = None
    score: float | None = None
    probability: float | None = None
    rank: int | None = None


@dataclass
class _Found:
    """All known lenses of the list, and which of them are known to have a source."""

    lenses: list[_Lens]
    matched: set[int] = field(default_factory=set)


def follow(
    run: RunDirectory,
    listed: KnownList,
    rule: Rule,
    identity: str,
    ask: Ask | None = None,
) -> Known:
    """Where the run left each lens of a list that lies in its footprint.

    The footprint: HEALPix cells that hold a source that was selected (scored or failed), of the
    finest order up to 10 at which they hold 16 on the mean. A lens is in it where its cell is, or
    where a selected source is within the radius. Of several scored sources within the radius, that
    with the highest score counts, else the nearest failure, else what `ask` says. ask: None where
    the catalogue cannot be asked.
    """
    score_parts = run.part_names("scores", run.commits("score"))
    failed = [n for stage in STAGES for n in run.part_names("failures", run.commits(stage))]
    ra, dec = (listed.table[name].to_numpy() for name in ("ra", "dec"))
    found = _Found([_Lens() for _ in range(len(ra))])
    parts = [*score_parts, *failed]
    id_type = scores.schema(run, parts).field("object_id").type if parts else pa.int64()
    order, pixels = _footprint(_indices(run, parts))
    if score_parts:
        _find_scored(run, score_parts, listed, rule, found)
    _find_failed(run, failed, listed, found)
    inside = _in_cells(ra, dec, order, pixels)
    inside[sorted(found.matched)] = True
    rest = [k for k in np.flatnonzero(inside).tolist() if k not in found.matched]
    if ask is not None and rest:
        for k, left in zip(rest, ask(ra[rest], dec[rest], listed.radius_arcsec), strict=True):
            found.lenses[k] = _as_left(left)
    return Known(
        _table(listed, found, np.flatnonzero(inside), id_type),
        listed.radius_arcsec,
        listed.table.num_rows,
        order,
        listed.sha256,
        identity,
    )


def _indices(run: RunDirectory, parts: Sequence[str]) -> Iterator[Int64[np.ndarray, " n"]]:
    """`healpix_29` of all selected sources; failures without a position have none."""
    for table in stream(run, parts, [HEALPIX]):
        yield table[HEALPIX].drop_null().to_numpy()


def _footprint(indices: Iterable[Int64[np.ndarray, " n"]]) -> tuple[int, Int64[np.ndarray, " n"]]:
    """(order, pixels that hold sources); see `follow`."""
    pixels, rows = np.empty(0, np.int64), np.empty(0, np.int64)
    for places in indices:
        pixels, rows = add_counts(pixels, rows, places >> 2 * (MAX_ORDER - FINEST_ORDER))
    return _coarsened(pixels, rows)


def _coarsened(
    pixels: Int64[np.ndarray, " n"], rows: Int64[np.ndarray, " n"]
) -> tuple[int, Int64[np.ndarray, " n"]]:
    order, total = FINEST_ORDER, int(rows.sum())
    while order > 0 and len(pixels) * ROWS_PER_CELL > total:
        order -= 1
        pixels = np.unique(pixels >> 2)
    return order, pixels


def _in_cells(
    ra: Float64[np.ndarray, " n"],
    dec: Float64[np.ndarray, " n"],
    order: int,
    pixels: Int64[np.ndarray, " m"],
) -> Bool[np.ndarray, " n"]:
    if not len(ra):
        return np.zeros(0, bool)
    return np.asarray(np.isin(healpix_29(ra, dec) >> 2 * (MAX_ORDER - order), pixels))


def _find_scored(
    run: RunDirectory, parts: Sequence[str], listed: KnownList, rule: Rule, found: _Found
) -> None:
    ra, dec = (listed.table[name].to_numpy() for name in ("ra", "dec"))
    pairs = match_slab(Published(run), ra, dec, listed.radius_arcsec, every=True)
    if pairs is None:
        return
    score = pairs.sources["score"].to_numpy()
    order = np.lexsort((pairs.separation_arcsec, -score, pairs.outside))
    _, first = np.unique(pairs.outside[order], return_index=True)
    best = order[first]
    ranks = _ranks(run, parts, score[best])
    kept = _kept_ids(run)
    for k, rank in zip(best.tolist(), ranks.tolist(), strict=True):
        object_id = pairs.sources["object_id"][k].as_py()
        value = float(score[k])
        if rule.top is None:
            chosen = rule.score_above is not None and value > rule.score_above
        else:  # among equal scores at the end the candidates themselves decide, where all are kept
            chosen = object_id in kept if rule.top <= rule.keep else rank <= rule.top
        lens = int(pairs.outside[k])
        found.matched.add(lens)
        found.lenses[lens] = _Lens(
            fate="candidate" if chosen else "below_threshold",
            object_id=object_id,
            separation_arcsec=float(pairs.separation_arcsec[k]),
            score=value,
            probability=float(pairs.sources["probability"][k].as_py()),
            rank=rank,
        )


def _ranks(run: RunDirectory, parts: Sequence[str], score: np.ndarray) -> Int64[np.ndarray, " n"]:
    """1 + scored sources that have a higher score, in one pass over that column."""
    distinct, which = np.unique(score, return_inverse=True)
    above = np.zeros(len(distinct) + 1, np.int64)
    for table in stream(run, parts, ["score"]):
        below = np.searchsorted(distinct, table["score"].to_numpy(), side="left")
        above += np.bincount(below, minlength=len(above))  # so many of `distinct` are lower
    higher = above[::-1].cumsum()[::-1][1:]
    return np.asarray(1 + higher[which], np.int64)


def _kept_ids(run: RunDirectory) -> set[Any]:
    group = open_candidates(run)
    return set() if group is None else set(np.asarray(array_of(group, "object_id")[:]).tolist())


def _find_failed(run: RunDirectory, parts: Sequence[str], listed: KnownList, found: _Found) -> None:
    ra, dec = (listed.table[name].to_numpy() for name in ("ra", "dec"))
    scored, nearest = set(found.matched), np.full(len(ra), np.inf)
    for table in stream(run, parts, ["object_id", "ra", "dec", "reason"]):
        at_ra, at_dec = (_degrees(table[name]) for name in ("ra", "dec"))
        rows, lenses, far = pairs_within(at_ra, at_dec, ra, dec, listed.radius_arcsec)
        for row, lens, separation in zip(rows.tolist(), lenses.tolist(), far.tolist(), strict=True):
            if lens in scored or separation >= nearest[lens]:
                continue
            nearest[lens] = separation
            found.matched.add(lens)
            found.lenses[lens] = _Lens(
                fate="failed",
                reason=table["reason"][row].as_py(),
                object_id=table["object_id"][row].as_py(),
                separation_arcsec=separation,
            )


def _degrees(column: pa.ChunkedArray) -> Float64[np.ndarray, " n"]:
    return np.asarray(pc.fill_null(column, float("nan")).to_numpy(), np.float64)


def _as_left(left: Left | None) -> _Lens:
    if left is None:
        return _Lens(fate="not_in_catalogue")
    return _Lens(left.left, left.reason, left.object_id, left.separation_arcsec)


def _table(
    listed: KnownList, found: _Found, rows: Int64[np.ndarray, " n"], id_type: pa.DataType
) -> pa.Table:
    schema = known_schema(id_type)
    told = listed.table.take(pa.array(rows))
    lenses = [found.lenses[k] for k in rows.tolist()]
    columns = [told[field.name] for field in LISTED]
    for own in schema.names[len(LISTED) :]:
        kind = schema.field(own).type
        columns.append(pa.chunked_array([pa.array([getattr(x, own) for x in lenses], kind)]))
    return pa.table(columns, schema=schema).combine_chunks()
