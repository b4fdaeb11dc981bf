"""Stage `select` for one part of the catalogue: row groups in, part files out."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import pyarrow as pa

from lenspipe.contracts import Reason
from lenspipe.intervals import Interval
from lenspipe.processes.rehearsal import rehearse
from lenspipe.run_directory import RunDirectory, ShardRecord
from lenspipe.runtime import PoolOptions
from lenspipe.select.sources import SourcePart, group_slices
from lenspipe.select.stage import (
    SelectCounts,
    SelectPlan,
    open_network,
    select_nothing,
    select_part,
)
from lenspipe.stages.stage import StageSpec


@dataclass(frozen=True)
class CatalogueRows:
    """Rows of the catalogue from `start` on, in the order of planning: the unit of the stage."""

    start: int
    part: SourcePart

    @property
    def interval(self) -> Interval:
        """The rows, half open."""
        return (self.start, self.start + self.part.rows)

    def split(self) -> list[CatalogueRows]:
        """One piece per row group; itself where it is one."""
        return lay_out(group_slices(self.part.slices, 1), self.start)


def lay_out(parts: Sequence[SourcePart], start: int = 0) -> list[CatalogueRows]:
    """Parts end to end, the first at row `start`."""
    laid = []
    for part in parts:
        laid.append(CatalogueRows(start, part))
        start += part.rows
    return laid


@dataclass(frozen=True)
class SelectorFactory:
    """Builds a `Selector` inside an actor."""

    run_url: str
    plan: SelectPlan

    def __call__(self) -> Selector:
        """The callable that the pool applies; InputError where the network cannot be opened."""
        open_network(self.plan)
        rehearse(lambda: select_nothing(self.plan))
        return Selector(RunDirectory(self.run_url), self.plan)


@dataclass(frozen=True)
class Selector:
    """Selects from one part and writes its part files."""

    run: RunDirectory
    plan: SelectPlan

    def __call__(self, work: CatalogueRows) -> ShardRecord:
        """The record of the part; it counts only once the driver has committed it."""
        began = time.perf_counter()
        result = select_part(work.part, self.plan)
        selected = time.perf_counter()
        tables = {"select": result.selected, "failures": result.failures}
        parts = {
            folder: self.run.write_part(folder, *work.interval, table)
            for folder, table in tables.items()
            if table.num_rows
        }
        return ShardRecord(
            stage="select",
            start=work.start,
            stop=work.interval[1],
            rows_in=result.counts.rows_in,
            rows_out=result.counts.selected,
            rows_failed=result.counts.failed,
            removed=removed(result.counts),
            reasons=dict(Counter(result.failures["reason"].to_pylist())),
            parts=parts,
            seconds={"select": selected - began, "write": time.perf_counter() - selected},
            bytes_read=work.part.size_bytes,
        )


@dataclass(frozen=True)
class Quarantine:
    """Makes the record of row groups that no attempt could read: every row is a failure, without
    the id that nobody could read."""

    run: RunDirectory
    plan: SelectPlan

    def __call__(self, work: CatalogueRows, reason: Reason, detail: str) -> ShardRecord:
        """Write the failure rows."""
        rows = work.part.rows
        piece = work.part.slices[0]
        if reason is Reason.WORKER_ERROR:
            reason = Reason.UNREADABLE
        where = f"{piece.file.path}, row group {piece.first_group}: {detail}"
        schema = self.plan.failure_schema
        told = {"stage": "select", "reason": str(reason), "detail": where}
        table = pa.table(
            [pa.repeat(pa.scalar(told.get(field.name), field.type), rows) for field in schema],
            schema=schema,
        )
        return ShardRecord(
            stage="select",
            start=work.start,
            stop=work.interval[1],
            rows_in=rows,
            rows_out=0,
            rows_failed=rows,
            reasons={str(reason): rows},
            parts={"failures": self.run.write_part("failures", *work.interval, table)},
        )


def rows_lost(schema: pa.Schema, record: ShardRecord, name: str) -> pa.Table:
    """Failures of a record whose file is gone: as many for each reason, without their ids."""
    where = f"{name} was lost; of rows {record.start} to {record.stop} of the catalogue"
    reasons = [reason for reason, count in record.reasons.items() for _ in range(count)]
    told = {"stage": ["select"] * len(reasons), "reason": reasons, "detail": [where] * len(reasons)}
    none = [None] * len(reasons)
    columns = [pa.array(told.get(field.name, none), field.type) for field in schema]
    return pa.table(columns, schema=schema)


def stage_spec(
    run: RunDirectory, plan: SelectPlan, options: PoolOptions
) -> StageSpec[CatalogueRows]:
    """The stage as `run_stage` does it."""
    return StageSpec("select", SelectorFactory(run.url, plan), Quarantine(run, plan), options)


def removed(counts: SelectCounts) -> dict[str, int]:
    """Rows taken out, as a commit record names the causes: `cut:NAME:false`, `cut:NAME:unknown`
    (a cut that is neither true nor false removes the row too) and `network`."""
    flat = {"network": counts.rejected}
    for name, count in counts.removed.items():
        flat[f"cut:{name}:false"] = count.false
        flat[f"cut:{name}:unknown"] = count.unknown
    return flat
