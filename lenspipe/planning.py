"""Between select and score: the selected sources in the order of their pixels, cut into shards.

The plan is a run's second table: all selected rows sorted by locality, in files of a fixed number
of rows, so that any row interval is found by arithmetic. Repeated ids are marked here, where all
rows pass by once.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.dataset as pads
import pyarrow.parquet as pq
from jaxtyping import Int64
from pydantic import BaseModel, ConfigDict

from lenspipe.intervals import Interval, shard_bounds
from lenspipe.run_directory import PLAN_FILE_ROWS, PLAN_RECORD, RunDirectory, plan_name

ROW_GROUP_ROWS = 8192
MIN_SHARD_ROWS = 256  # a few batches: the last one is padded
# Shards that a worker should get at least, so that the last ones end together.
SHARDS_PER_WORKER = 8
DUPLICATE = "duplicate"


class Plan(BaseModel):
    """The committed plan: `rows` selected sources, shard i = rows bounds[i] to bounds[i + 1]."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    rows: int
    duplicates: int
    bounds: tuple[int, ...]

    @property
    def shards(self) -> list[Interval]:
        """The planned shards as row intervals."""
        return list(zip(self.bounds[:-1], self.bounds[1:], strict=True))


def read_plan(run: RunDirectory) -> Plan | None:
    """The plan if it was committed; None before that."""
    content = run.read_json(PLAN_RECORD)
    return None if content is None else Plan.model_validate(content)


def make_plan(
    run: RunDirectory, selected_parts: Sequence[str], shard_rows: int, workers: int
) -> Plan:
    """Sort, mark repeated ids, write and commit the plan; the same input gives the same plan.

    Of several rows with one id the first that has pixels is scored, the others are marked.
    Memory is bounded: DuckDB sorts on disk, files are written as they fill.
    """
    groups: list[Int64[np.ndarray, " m"]] = []
    rows = duplicates = 0
    if selected_parts:
        with TemporaryDirectory(prefix="lenspipe-plan-") as scratch:
            for index, table in enumerate(_sorted_files(run, selected_parts, scratch)):
                _write_plan_file(run, index, table)
                groups.append(table["locality"].to_numpy())
                rows += table.num_rows
                duplicates += int(np.count_nonzero(table[DUPLICATE].to_numpy()))
    localities = np.concatenate(groups) if groups else np.empty(0, np.int64)
    per_worker = max(MIN_SHARD_ROWS, -(-rows // (SHARDS_PER_WORKER * max(workers, 1))))
    bounds = shard_bounds(_run_lengths(localities), min(shard_rows, per_worker))
    plan = Plan(rows=rows, duplicates=duplicates, bounds=tuple(bounds.tolist()))
    run.write_json(PLAN_RECORD, plan.model_dump(mode="json"))
    return plan


def read_rows(run: RunDirectory, interval: Interval) -> pa.Table:
    """Rows of the plan; reads only the row groups that hold them."""
    start, stop = interval
    pieces = []
    for index in range(start // PLAN_FILE_ROWS, (stop - 1) // PLAN_FILE_ROWS + 1):
        first = index * PLAN_FILE_ROWS
        low, high = max(start - first, 0), min(stop - first, PLAN_FILE_ROWS)
        with run.store.open(plan_name(index)) as source:
            file = pq.ParquetFile(source)
            begin = low // ROW_GROUP_ROWS
            wanted = range(begin, (high - 1) // ROW_GROUP_ROWS + 1)
            table = file.read_row_groups(list(wanted))
        pieces.append(table.slice(low - begin * ROW_GROUP_ROWS, high - low))
    return pa.concat_tables(pieces).combine_chunks()


def _sorted_files(
    run: RunDirectory, selected_parts: Sequence[str], scratch: str
) -> Iterator[pa.Table]:
    dataset = pads.dataset(
        [run.store.path(name) for name in selected_parts],
        filesystem=run.store.arrow_filesystem(),
        format="parquet",
    )
    schema = dataset.schema.append(pa.field(DUPLICATE, pa.bool_()))
    order = "locality, healpix_29, object_id, ra, dec"
    with duckdb.connect(config={"temp_directory": str(Path(scratch, "duckdb"))}) as connection:
        connection.register("selected", dataset)
        batches: pa.RecordBatchReader = connection.sql(
            f"""SELECT *, row_number() OVER (
                    PARTITION BY object_id ORDER BY locality < 0, healpix_29, ra, dec
                ) > 1 AS {DUPLICATE}
                FROM selected ORDER BY {order}, {DUPLICATE}"""  # noqa: S608  # constants only
        ).to_arrow_reader(ROW_GROUP_ROWS)
        waiting: list[pa.RecordBatch] = []
        held = 0
        for batch in batches:
            waiting.append(batch)
            held += batch.num_rows
            while held >= PLAN_FILE_ROWS:
                table = pa.Table.from_batches(waiting)
                yield table.slice(0, PLAN_FILE_ROWS).cast(schema)
                waiting = table.slice(PLAN_FILE_ROWS).to_batches()
                held -= PLAN_FILE_ROWS
        if held:
            yield pa.Table.from_batches(waiting).cast(schema)


def _write_plan_file(run: RunDirectory, index: int, table: pa.Table) -> None:
    with run.store.writing(plan_name(index)) as path:
        pq.write_table(table, path, row_group_size=ROW_GROUP_ROWS, compression="zstd")


def _run_lengths(values: Int64[np.ndarray, " n"]) -> Int64[np.ndarray, " m"]:
    if not len(values):
        return np.empty(0, np.int64)
    changes = np.flatnonzero(np.diff(values)) + 1
    return np.diff(np.concatenate([[0], changes, [len(values)]]))
