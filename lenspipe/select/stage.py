"""Stage `select`: one part of the catalogue in, its survivors out. Knows no Ray and no run.

Each row of a part leaves exactly once: removed by a cut, rejected by the network, selected, or
failed (it survived the cuts but has no id, no usable position, or no score).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from jaxtyping import Bool, Float32, Float64, Int64

from lenspipe.contracts import Reason
from lenspipe.cutouts.base import Reader
from lenspipe.cutouts.planned import open_planned
from lenspipe.healpix import healpix_29
from lenspipe.select.counts import SelectCounts
from lenspipe.select.cuts import CutCount
from lenspipe.select.measured import RESERVED, with_nulls
from lenspipe.select.photometry import PhotometryNetwork, keeps
from lenspipe.select.plan import SelectPlan, plan_select
from lenspipe.select.sources import SourcePart, read_part
from lenspipe.sky import on_sky, wrapped

__all__ = [
    "SelectCounts",
    "SelectPlan",
    "SelectResult",
    "open_network",
    "plan_select",
    "select_nothing",
    "select_part",
    "survivor_scores",
]


@dataclass(frozen=True)
class SelectResult:
    """What became of one part. selected, failures: tables of the plan's schemas."""

    selected: pa.Table
    failures: pa.Table
    counts: SelectCounts


def select_part(part: SourcePart, plan: SelectPlan) -> SelectResult:
    """Cuts, network, position on the sky and locality of one part. The same part and plan give the
    same result."""
    if plan.network is not None and plan.threshold is None:
        raise ValueError("the plan has no threshold: settle it first (lenspipe.select.threshold)")
    survivors, removed = _survivors(part, plan)
    usable, failures = _split_unusable(survivors, plan)
    scores = _scores(usable, plan)
    scored, unscored = _split(usable, np.isfinite(scores)) if plan.network else (usable, None)
    if unscored is not None and unscored.num_rows:
        details = ["the photometry network gave no number"] * unscored.num_rows
        failed = _failures(unscored, Reason.NON_FINITE_SCORE, details, plan)
        failures = pa.concat_tables([failures, failed])
        scores = scores[np.isfinite(scores)]
    kept = keeps(scores, plan.threshold) if plan.threshold is not None else None
    selected = scored if kept is None else scored.filter(pa.array(kept))
    counts = SelectCounts(
        rows_in=part.rows,
        removed=removed,
        rejected=scored.num_rows - selected.num_rows,
        selected=selected.num_rows,
        failed=failures.num_rows,
    )
    return SelectResult(
        _selected(selected, scores if kept is None else scores[kept], plan), failures, counts
    )


def open_network(plan: SelectPlan) -> None:
    """Open the plan's network before the first part waits for it; InputError where it is none."""
    _network(plan)


def select_nothing(plan: SelectPlan) -> None:
    """All that a part does, for a part without rows: what Python imports on the way, and a reader's
    opening, take longer than a real part does."""
    select_part(SourcePart(0, ()), plan)


def survivor_scores(part: SourcePart, plan: SelectPlan) -> Float32[np.ndarray, " n"]:
    """Logits of the rows that reach the network, NaN where it gives none."""
    usable, _ = _split_unusable(_survivors(part, plan)[0], plan)
    return _scores(usable, plan)


def _survivors(part: SourcePart, plan: SelectPlan) -> tuple[pa.Table, Mapping[str, CutCount]]:
    """Rows that satisfy all cuts, with the columns that the rest of the stage needs.

    The cuts' columns are read first, the others only in row groups where a row survives.
    """
    later = list(dict.fromkeys([*RESERVED, *plan.network_columns, *plan.carried]))
    if not plan.cuts.names:
        return read_part(part, plan.view, later, threads=plan.threads), {}
    early = _read_cut_columns(part, plan)
    result = plan.cuts.apply(early, plan.view.missing_values)
    again = [name for name in later if name in plan.cuts.columns]
    kept = early.select(again).take(pa.array(result.kept))
    kept = with_nulls(kept, plan.view.missing_values, plan.view.exact)
    table = _read_the_rest(part, plan, [name for name in later if name not in again], result.kept)
    for name in again:
        table = table.append_column(early.schema.field(name), kept.column(name))
    return table.select(later), result.removed


def _read_cut_columns(part: SourcePart, plan: SelectPlan) -> pa.Table:
    return read_part(part, plan.view, plan.cuts.columns, threads=plan.threads, as_stored=True)


def _read_the_rest(
    part: SourcePart, plan: SelectPlan, columns: Sequence[str], rows: Int64[np.ndarray, " k"]
) -> pa.Table:
    return read_part(part, plan.view, columns, rows=rows, threads=plan.threads)


def _split_unusable(table: pa.Table, plan: SelectPlan) -> tuple[pa.Table, pa.Table]:
    """Rows with an id and a position on the sky; failures for the others."""
    ra, dec = _degrees(table, "ra"), _degrees(table, "dec")
    has_id = np.asarray(pc.is_valid(table.column("object_id")).to_numpy())
    usable, unusable = _split(table, has_id & on_sky(ra, dec))
    rows = np.flatnonzero(~(has_id & on_sky(ra, dec)))
    details = [_what_is_wrong(bool(has_id[k]), float(ra[k]), float(dec[k])) for k in rows]
    return usable, _failures(unusable, Reason.BAD_METADATA, details, plan)


def _split(table: pa.Table, mask: Bool[np.ndarray, " n"]) -> tuple[pa.Table, pa.Table]:
    if mask.all():
        return table, table.slice(0, 0)
    return table.filter(pa.array(mask)), table.filter(pa.array(~mask))


def _degrees(table: pa.Table, name: str) -> Float64[np.ndarray, " n"]:
    column = table.column(name).cast(pa.float64())
    return np.asarray(pc.fill_null(column, float("nan")).to_numpy())


def _what_is_wrong(has_id: bool, ra: float, dec: float) -> str:
    if not has_id:
        return "object_id is missing or no text"
    if np.isnan(ra) or np.isnan(dec):
        return f"{'ra' if np.isnan(ra) else 'dec'} is missing or not finite"
    return f"ra {ra:g}, dec {dec:g} deg is no position on the sky"


def _scores(table: pa.Table, plan: SelectPlan) -> Float32[np.ndarray, " n"]:
    network = _network(plan)
    return network.score(table) if network else np.full(table.num_rows, np.nan, np.float32)


def _selected(table: pa.Table, scores: Float32[np.ndarray, " n"], plan: SelectPlan) -> pa.Table:
    """Survivors as `select/part-*.parquet` holds them; ra within 0..360 deg."""
    ra, dec = wrapped(_degrees(table, "ra")), _degrees(table, "dec")
    reader = _reader(plan)
    none = np.full(table.num_rows, -1, np.int64)
    columns = {
        "object_id": table.column("object_id"),
        "ra": pa.array(ra),
        "dec": pa.array(dec),
        "healpix_29": pa.array(healpix_29(ra, dec)),
        "photometry_score": pa.array(scores, from_pandas=True),
        **{name: table.column(name) for name in plan.carried},
    }
    sources = pa.table(columns)
    locality: Int64[np.ndarray, " n"] = reader.locality(sources) if reader and len(ra) else none
    columns["locality"] = pa.array(locality)
    schema = plan.selected_schema
    return pa.table([columns[name] for name in schema.names], schema=schema)


def _failures(
    table: pa.Table, reason: Reason, details: Sequence[str], plan: SelectPlan
) -> pa.Table:
    """Failure rows; position as the catalogue has it, no HEALPix index where there is none."""
    rows = table.num_rows
    ra, dec = _degrees(table, "ra"), _degrees(table, "dec")
    there = on_sky(ra, dec)
    index = np.zeros(rows, np.int64)
    index[there] = healpix_29(wrapped(ra[there]), dec[there])
    return pa.table(
        [
            table.column("object_id"),
            pa.array(ra, from_pandas=True),
            pa.array(dec, from_pandas=True),
            pa.array(index, mask=~there),
            pa.repeat(pa.scalar("select"), rows),
            pa.repeat(pa.scalar(reason.value), rows),
            pa.array(details, pa.string()),
        ],
        schema=plan.failure_schema,
    )


@lru_cache(maxsize=2)
def _network(plan: SelectPlan) -> PhotometryNetwork | None:
    """The photometry network, opened once per process and plan."""
    return PhotometryNetwork.load(plan.network, plan.threads) if plan.network else None


@lru_cache(maxsize=2)
def _reader(plan: SelectPlan) -> Reader | None:
    """The reader that knows where pixels lie, opened once per process and plan."""
    return open_planned(plan.reader, plan.base) if plan.reader else None
