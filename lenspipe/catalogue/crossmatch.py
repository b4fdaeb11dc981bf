"""Sources of a run beside the rows of another catalogue, within a radius.

Both sides are cut by HEALPix: a row of the other catalogue is looked for in its cell, no smaller
than the radius, and in the eight around it, which hold all that is within the radius. So no row
meets the whole sky, and what is in memory is a slab of one side and a row group of the other.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from jaxtyping import Bool, Float64, Int64

from lenspipe.catalogue.cells import Cells
from lenspipe.catalogue.outside import SLAB_ROWS, Outside
from lenspipe.catalogue.places import HEALPIX
from lenspipe.catalogue.published import SEPARATION, Published
from lenspipe.errors import InputError
from lenspipe.sky import separation_deg

LARGEST_ARCSEC = 3600.0
PREFIX = "other_"


@dataclass(frozen=True)
class Pairs:
    """Rows of one slab of the other catalogue and of the run that lie together.

    outside: rows of the slab; sources: the run's rows, of the same length; separation_arcsec.
    """

    outside: Int64[np.ndarray, " n"]
    sources: pa.Table
    separation_arcsec: Float64[np.ndarray, " n"]


def crossmatch(
    published: Published, outside: Outside, radius_arcsec: float, every: bool = False
) -> pa.Table:
    """The other catalogue's rows that have a scored source within a radius, each with its nearest
    one, or (`every`) with all of them: the run's columns, `separation_arcsec`, then the other's
    columns, `other_` before a name that both have. In the order of the other catalogue, the nearest
    first.

    Rows without a position have no match. InputError where the radius is not within 0..3600 arcsec.
    """
    if not 0.0 < radius_arcsec <= LARGEST_ARCSEC:
        raise InputError("--radius", f"an angle up to {LARGEST_ARCSEC:g} arcsec", radius_arcsec)
    names = _names(published.schema, outside.schema)
    schema = pa.schema(
        [*published.schema, SEPARATION, *(f.with_name(names[f.name]) for f in outside.schema)]
    )
    found = [
        _joined(slab, pairs, schema)
        for slab in outside.slabs(SLAB_ROWS)
        if (pairs := match_slab(published, *outside.position(slab), radius_arcsec, every))
    ]
    return pa.concat_tables([schema.empty_table(), *found]).combine_chunks()


def match_slab(
    published: Published,
    ra_deg: Float64[np.ndarray, " n"],
    dec_deg: Float64[np.ndarray, " n"],
    radius_arcsec: float,
    every: bool,
) -> Pairs | None:
    """Pairs of some positions with the run's sources, by position, then by distance; None where
    there are none."""
    known = np.flatnonzero(np.isfinite(ra_deg) & np.isfinite(dec_deg))
    cells = Cells(ra_deg[known], dec_deg[known], radius_arcsec)
    rows: list[Int64[np.ndarray, " n"]] = []
    tables: list[pa.Table] = []
    distances: list[Float64[np.ndarray, " n"]] = []
    for group in published.row_groups(cells.ranges()):
        place = group.places
        pairs = cells.pairs(place[HEALPIX].to_numpy())
        kept = [
            _near(place, pair, (ra_deg[known], dec_deg[known]), radius_arcsec) for pair in pairs
        ]
        if not sum(len(k[0]) for k in kept):
            continue
        theirs, ours, far = (np.concatenate(parts) for parts in zip(*kept, strict=True))
        rows.append(known[theirs])
        tables.append(group.take(ours, published.schema.names))
        distances.append(far)
    if not rows:
        return None
    together = Pairs(np.concatenate(rows), pa.concat_tables(tables), np.concatenate(distances))
    return _ordered(together, every)


def _near(
    place: pa.Table,
    pair: tuple[Int64[np.ndarray, " n"], Int64[np.ndarray, " n"]],
    position: tuple[Float64[np.ndarray, " k"], Float64[np.ndarray, " k"]],
    radius_arcsec: float,
) -> tuple[Int64[np.ndarray, " m"], Int64[np.ndarray, " m"], Float64[np.ndarray, " m"]]:
    """Those of some pairs that are within the radius, with their separation in arcsec."""
    theirs, ours = pair
    ra, dec = (place[name].to_numpy()[ours] for name in ("ra", "dec"))
    far = 3600.0 * separation_deg(position[0][theirs], position[1][theirs], ra, dec)
    within = far <= radius_arcsec
    return theirs[within], ours[within], far[within]


def _ordered(pairs: Pairs, every: bool) -> Pairs:
    order = np.lexsort((pairs.separation_arcsec, pairs.outside))
    if not every:
        rows = pairs.outside[order]
        order = order[_first_of_each(rows)]
    return Pairs(
        pairs.outside[order], pairs.sources.take(pa.array(order)), pairs.separation_arcsec[order]
    )


def _first_of_each(rows: Int64[np.ndarray, " n"]) -> Bool[np.ndarray, " n"]:
    return np.r_[True, rows[1:] != rows[:-1]] if len(rows) else np.zeros(0, bool)


def _names(ours: pa.Schema, theirs: pa.Schema) -> dict[str, str]:
    """What the other catalogue's columns are called in the result."""
    taken = {*ours.names, SEPARATION.name}
    names: dict[str, str] = {}
    for name in theirs.names:
        called = name
        while called in taken:
            called = PREFIX + called
        taken.add(called)
        names[name] = called
    return names


def _joined(slab: pa.Table, pairs: Pairs, schema: pa.Schema) -> pa.Table:
    theirs = slab.take(pa.array(pairs.outside))
    columns = [*pairs.sources.columns, pa.chunked_array([pairs.separation_arcsec]), *theirs.columns]
    return pa.table(columns, names=schema.names).cast(schema)
