"""Between select and score: the selected sources in the order of their pixels, cut into shards.

The plan is a run's second table: all selected rows sorted by locality, in files of a fixed number
of rows, so that any row interval is found by arithmetic. Repeated ids are marked here, where all
rows pass by once.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain, islice, pairwise

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as pads
import pyarrow.parquet as pq
from pydantic import BaseModel, ConfigDict, ValidationError, model_validator

from lenspipe.contracts import DUPLICATE, InputSpec
from lenspipe.errors import CorruptRunError
from lenspipe.intervals import Groups, Interval, divided, shard_bounds
from lenspipe.run.shard_record import Part
from lenspipe.run_directory import PLAN_FILE_ROWS, PLAN_RECORD, RunDirectory, plan_name, reading
from lenspipe.stages.plan_order import sorted_rows
from lenspipe.storage.external_sort import slabs

__all__ = ["DUPLICATE", "Plan", "even_rows", "make_plan", "read_plan", "read_rows"]

ROW_GROUP_ROWS = 8192
MIN_SHARD_ROWS = 256  # a few batches: the last one is padded
# Pixels of one shard; a scorer holds two, the one it scores and the one it reads.
SHARD_BYTES = 512 * 1024**2
# Shards that a worker should get at least, so that the last ones end together.
SHARDS_PER_WORKER = 8


def most_rows(shard_rows: int, inputs: Iterable[InputSpec]) -> int:
    """Rows of a shard whose pixels a scorer can hold several of: `shard_rows`, fewer where their
    pixels would take more than `SHARD_BYTES`."""
    row_bytes = sum(4 * math.prod(spec.shape) for spec in inputs)
    return max(1, min(shard_rows, SHARD_BYTES // max(row_bytes, 1)))


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

    def shards_of(self, most: int) -> list[Interval]:
        """The same, those of more than `most` rows evenly divided."""
        return [piece for shard in self.shards for piece in divided(shard, most)]


def read_plan(run: RunDirectory) -> Plan | None:
    """The plan if it was committed; None before that. CorruptRunError where it is broken."""
    try:
        return Plan.model_validate_json(run.store.read(PLAN_RECORD))
    except FileNotFoundError:
        return None
    except ValidationError as error:
        again = "lenspipe run --fresh begins anew"
        raise CorruptRunError(f"{broken(PLAN_RECORD, error)}: {again}") from error


def broken(name: str, error: ValidationError) -> CorruptRunError:
    """The first thing that is wrong with a JSON file of the run, with its place."""
    first = error.errors()[0]
    where = ".".join(str(part) for part in first["loc"])
    return CorruptRunError(": ".join(part for part in (name, where, first["msg"]) if part))


def even_rows(rows: int, shard_rows: int, workers: int) -> int:
    """Most rows of a shard of so many selected rows: `shard_rows`, fewer where workers would have
    too few shards each for the last ones to end together."""
    per_worker = max(MIN_SHARD_ROWS, -(-rows // (SHARDS_PER_WORKER * max(workers, 1))))
    return min(shard_rows, per_worker)


def make_plan(
    run: RunDirectory, selected_parts: Sequence[str], shard_rows: int, workers: int
) -> Plan:
    """Sort, mark repeated ids, write and commit the plan; the same input gives the same plan.

    Of several rows with one id the first that has pixels is scored, the others are marked.
    Memory does not grow with the rows, but for 8 bytes a unit of storage or shard: what is sorted
    lies on disk.
    """
    groups = Groups()
    files: list[Part] = []
    duplicates = 0

    def counted(tables: Iterable[pa.Table]) -> Iterator[pa.Table]:
        nonlocal duplicates
        for table in tables:
            groups.add(table["locality"].to_numpy())
            duplicates += int(pc.sum(table[DUPLICATE]).as_py())
            yield table

    slab_rows = min(PLAN_FILE_ROWS, 8 * ROW_GROUP_ROWS)
    ordered = slabs(sorted_rows(run, selected_parts), slab_rows) if selected_parts else iter(())
    tables = counted(ordered)
    for first in tables:
        rest = islice(tables, PLAN_FILE_ROWS // slab_rows - 1)
        files.append(_write_plan_file(run, plan_name(len(files)), first, rest))
    rows = sum(file.rows for file in files)
    bounds = shard_bounds(groups.sizes, even_rows(rows, shard_rows, workers))
    plan = Plan(rows=rows, duplicates=duplicates, bounds=tuple(bounds.tolist()), files=tuple(files))
    run.store.write(PLAN_RECORD, plan.model_dump_json().encode())
    return plan


def read_rows(run: RunDirectory, interval: Interval) -> pa.Table:
    """Rows of the plan; reads only the row groups that hold them. CorruptRunError names a damaged
    file."""
    start, stop = interval
    pieces = []
    for index in range(start // PLAN_FILE_ROWS, (stop - 1) // PLAN_FILE_ROWS + 1):
        first = index * PLAN_FILE_ROWS
        low, high = max(start - first, 0), min(stop - first, PLAN_FILE_ROWS)
        name = plan_name(index)
        with reading(name), run.store.open(name) as source:
            file = pq.ParquetFile(source, page_checksum_verification=True)
            begin = low // ROW_GROUP_ROWS
            wanted = range(begin, (high - 1) // ROW_GROUP_ROWS + 1)
            table = file.read_row_groups(list(wanted))
        pieces.append(table.slice(low - begin * ROW_GROUP_ROWS, high - low))
    return pa.concat_tables(pieces).combine_chunks()


def rows_of_ids(
    run: RunDirectory, ids: pa.ChunkedArray, columns: list[str] | None = None
) -> pa.Table:
    """Rows of the plan with these ids, in its order, without those that repeat an id.

    columns: all by default. CorruptRunError where the plan is lost, or names a damaged file.
    """
    plan = read_plan(run)  # a listing of an object store may lag behind
    if plan is None:
        raise CorruptRunError(f"{PLAN_RECORD}: lost")
    dataset = pads.dataset(
        [run.store.path(file.name) for file in plan.files],
        filesystem=run.store.arrow_filesystem(),
        format=pads.ParquetFileFormat(
            default_fragment_scan_options=pads.ParquetFragmentScanOptions(
                page_checksum_verification=True
            )
        ),
    )
    wanted = pc.field("object_id").isin(ids.combine_chunks()) & ~pc.field(DUPLICATE)
    with reading("plan/selected-*"):
        return dataset.to_table(columns=columns, filter=wanted)


def _write_plan_file(
    run: RunDirectory, name: str, first: pa.Table, rest: Iterable[pa.Table]
) -> Part:
    with run.store.writing(name) as path:
        rows = 0
        options = {"compression": "zstd", "write_page_checksum": True}
        with pq.ParquetWriter(path, first.schema, **options) as writer:
            for table in chain([first], rest):
                writer.write_table(table, row_group_size=ROW_GROUP_ROWS)
                rows += table.num_rows
        with path.open("rb") as file:
            sha256 = hashlib.file_digest(file, "sha256").hexdigest()
        size = path.stat().st_size
    return Part(name=name, rows=rows, bytes=size, sha256=sha256)
