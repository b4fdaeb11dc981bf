"""Between select and score: the selected sources in the order of their pixels, cut into shards.

The plan is a run's second table: all selected rows sorted by locality, in files of a fixed number
of rows, so that any row interval is found by arithmetic. Repeated ids are marked here, where all
rows pass by once.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from itertools import pairwise

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from jaxtyping import Int64
from pydantic import BaseModel, ConfigDict, ValidationError, model_validator

from lenspipe.catalogue import scores
from lenspipe.errors import CorruptRunError
from lenspipe.intervals import Interval, shard_bounds
from lenspipe.run_directory import PLAN_FILE_ROWS, PLAN_RECORD, Part, RunDirectory, plan_name

ROW_GROUP_ROWS = 8192
MIN_SHARD_ROWS = 256  # a few batches: the last one is padded
# Shards that a worker should get at least, so that the last ones end together.
SHARDS_PER_WORKER = 8
DUPLICATE = "duplicate"


class Plan(BaseModel):
    """The committed plan: `rows` selected sources, shard i = rows bounds[i] to bounds[i + 1].

    files: what holds the rows, in their order; every one but the last is full.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    rows: int
    duplicates: int
    bounds: tuple[int, ...]
    files: tuple[Part, ...]

    @model_validator(mode="after")
    def _whole(self) -> Plan:
        ends = self.bounds[:1] + self.bounds[-1:]
        if ends != (0, self.rows) or any(stop <= start for start, stop in pairwise(self.bounds)):
            raise ValueError(f"expected bounds that ascend from 0 to {self.rows}")
        for index, file in enumerate(self.files):
            rows = min(PLAN_FILE_ROWS, self.rows - index * PLAN_FILE_ROWS)
            if (file.name, file.rows) != (plan_name(index), rows):
                raise ValueError(f"expected file {index} to be {plan_name(index)} of {rows} rows")
        if sum(file.rows for file in self.files) != self.rows:
            raise ValueError(f"expected files of {self.rows} rows in sum")
        return self

    @property
    def shards(self) -> list[Interval]:
        """The planned shards as row intervals."""
        return list(zip(self.bounds[:-1], self.bounds[1:], strict=True))


def read_plan(run: RunDirectory) -> Plan | None:
    """The plan if it was committed; None before that. CorruptRunError where it is broken."""
    try:
        return Plan.model_validate_json(run.store.read(PLAN_RECORD))
    except FileNotFoundError:
        return None
    except ValidationError as error:
        raise broken(PLAN_RECORD, error) from error


def broken(name: str, error: ValidationError) -> CorruptRunError:
    """The first thing that is wrong with a JSON file of the run, with its place."""
    first = error.errors()[0]
    where = ".".join(str(part) for part in first["loc"])
    return CorruptRunError(": ".join(part for part in (name, where, first["msg"]) if part))


def make_plan(
    run: RunDirectory, selected_parts: Sequence[str], shard_rows: int, workers: int
) -> Plan:
    """Sort, mark repeated ids, write and commit the plan; the same input gives the same plan.

    Of several rows with one id the first that has pixels is scored, the others are marked.
    Memory is bounded: DuckDB sorts on disk, files are written as they fill.
    """
    groups: list[Int64[np.ndarray, " m"]] = []
    files: list[Part] = []
    duplicates = 0
    for table in _sorted_files(run, selected_parts) if selected_parts else ():
        files.append(_write_plan_file(run, plan_name(len(files)), table))
        groups.append(table["locality"].to_numpy())
        duplicates += int(np.count_nonzero(table[DUPLICATE].to_numpy()))
    rows = sum(file.rows for file in files)
    localities = np.concatenate(groups) if groups else np.empty(0, np.int64)
    per_worker = max(MIN_SHARD_ROWS, -(-rows // (SHARDS_PER_WORKER * max(workers, 1))))
    bounds = shard_bounds(_run_lengths(localities), min(shard_rows, per_worker))
    plan = Plan(rows=rows, duplicates=duplicates, bounds=tuple(bounds.tolist()), files=tuple(files))
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


def _sorted_files(run: RunDirectory, selected_parts: Sequence[str]) -> Iterator[pa.Table]:
    schema = scores.schema(run, selected_parts).append(pa.field(DUPLICATE, pa.bool_()))
    order = "locality, healpix_29, object_id, ra, dec"
    with scores.connect(run, selected_parts, "selected") as connection:
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


def _write_plan_file(run: RunDirectory, name: str, table: pa.Table) -> Part:
    with run.store.writing(name) as path:
        # Chunks as they came from DuckDB would show in the bytes of the file.
        whole = table.combine_chunks()
        pq.write_table(whole, path, row_group_size=ROW_GROUP_ROWS, compression="zstd")
        with path.open("rb") as file:
            sha256 = hashlib.file_digest(file, "sha256").hexdigest()
        size = path.stat().st_size
    return Part(name=name, rows=table.num_rows, bytes=size, sha256=sha256)


def _run_lengths(values: Int64[np.ndarray, " n"]) -> Int64[np.ndarray, " m"]:
    if not len(values):
        return np.empty(0, np.int64)
    changes = np.flatnonzero(np.diff(values)) + 1
    return np.diff(np.concatenate([[0], changes, [len(values)]]))
