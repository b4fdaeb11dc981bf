"""Every name in a run directory, and how a shard is committed.

A worker writes part files under names that no other attempt uses; the driver, the only one that
commits, then writes the shard's record, which names them with their checksums. What no record
names does not exist: a killed attempt leaves nothing that counts.
"""

from __future__ import annotations

import hashlib
import json
import uuid
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO
from typing import Any, Literal

import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from lenspipe.errors import CorruptRunError
from lenspipe.storage import Store

RUN = "run.json"
FUNNEL = "funnel.json"
LOCK = "lock.json"
THRESHOLD = "threshold.json"  # of the photometry network, where the survey file gives a fraction
ERASING = "erasing"  # state of a run that is being removed
METRICS = "metrics.prom"
PLAN_RECORD = "plan/plan.json"
PLAN_FILE_ROWS = 1 << 20  # every file of the plan but the last holds so many rows
CATALOGUE = "catalogue"
CANDIDATES = "candidates.zarr"
REPORT = "report/index.html"

Stage = Literal["select", "score"]


def plan_name(index: int) -> str:
    """File of the plan that holds rows from index * PLAN_FILE_ROWS on."""
    return f"plan/selected-{index:06d}.parquet"


# Folders whose files exist only by the word of a record.
PART_FOLDERS = ("select", "scores", "failures")
_READ_THREADS = 16


class Part(BaseModel):
    """One committed part file."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    name: str
    rows: int
    bytes: int
    sha256: str


class ShardRecord(BaseModel):
    """The commit of one shard. start, stop: its rows of the catalogue in the order of planning
    (select) or of the plan (score). rows_in = rows_out + rows_failed + the sum of `removed`."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    stage: Stage
    start: int
    stop: int
    rows_in: int
    rows_out: int
    rows_failed: int
    removed: dict[str, int] = Field(default_factory=dict)
    reasons: dict[str, int] = Field(default_factory=dict)
    parts: dict[str, Part] = Field(default_factory=dict)
    attempt: int = 1
    seconds: dict[str, float] = Field(default_factory=dict)
    cutouts: int = 0
    batches: int = 0
    bytes_read: int = 0

    @property
    def name(self) -> str:
        """Name of the record's file."""
        return f"shards/{self.stage}-{self.start:012d}-{self.stop:012d}.json"

    @property
    def balanced(self) -> bool:
        """Whether every row that went in came out once."""
        return self.rows_in == self.rows_out + self.rows_failed + sum(self.removed.values())


class RunDirectory:
    """Reading and writing one run's files; see the module's docstring for the protocol."""

    def __init__(self, url: str) -> None:
        self.store = Store(url)

    @property
    def url(self) -> str:
        """Where the run is."""
        return self.store.url

    def write_part(self, folder: str, start: int, stop: int, table: pa.Table) -> Part:
        """Write a part file that counts only once a record names it."""
        sink = BytesIO()
        pq.write_table(table, sink, compression="zstd")
        data = sink.getvalue()
        name = f"{folder}/part-{start:012d}-{stop:012d}-{uuid.uuid4().hex[:8]}.parquet"
        self.store.write(name, data)
        return Part(
            name=name,
            rows=table.num_rows,
            bytes=len(data),
            sha256=hashlib.sha256(data).hexdigest(),
        )

    def commit(self, record: ShardRecord) -> None:
        """Make a shard's part files count."""
        if not record.balanced:
            raise CorruptRunError(f"{record.name}: rows in and out differ: {record}")
        self.store.write(record.name, record.model_dump_json().encode())

    def records(self, stage: Stage) -> list[ShardRecord]:
        """All commits of a stage, by start row. CorruptRunError names a record that is broken."""
        names = [n for n in self.store.names("shards") if n.startswith(f"shards/{stage}-")]
        with ThreadPoolExecutor(_READ_THREADS) as pool:
            return sorted(pool.map(self._record, names), key=lambda r: (r.start, r.stop))

    def _record(self, name: str) -> ShardRecord:
        try:
            return ShardRecord.model_validate_json(self.store.read(name))
        except ValidationError as error:
            first = error.errors()[0]
            raise CorruptRunError(f"{name}: {first['loc']}: {first['msg']}") from error

    def part_names(self, folder: str, records: Iterable[ShardRecord]) -> list[str]:
        """Names of the committed, non-empty part files of one folder, in the order of rows."""
        parts = (record.parts[folder] for record in records if folder in record.parts)
        return [part.name for part in parts if part.rows]

    def read_part(self, name: str, columns: Sequence[str] | None = None) -> pa.Table:
        """One part file as a table."""
        with self.store.open(name) as file:
            return pq.read_table(file, columns=columns)

    def read_folder(
        self, folder: str, stages: Sequence[Stage], columns: Sequence[str] | None = None
    ) -> pa.Table | None:
        """All committed rows of a folder; None where there are none. For tables that fit memory."""
        names = [n for s in stages for n in self.part_names(folder, self.records(s))]
        if not names:
            return None
        return pa.concat_tables([self.read_part(name, columns) for name in names])

    def erase(self) -> None:
        """Remove what runs write, and nothing else that lies in the folder; the lock stays.

        Records go before the files that they name, and `run.json` last and marked: whoever finds
        the mark goes on erasing.
        """
        self.write_json(RUN, {"state": ERASING})
        self.store.delete(PLAN_RECORD)
        for folder in ("shards", "plan", *PART_FOLDERS, CATALOGUE, CANDIDATES, "report"):
            self.store.delete_folder(folder)
        self.store.delete_unfinished()
        for name in (FUNNEL, METRICS, THRESHOLD, RUN):
            self.store.delete(name)

    def is_begun(self) -> bool:
        """Whether anything was committed here."""
        return self.store.exists(PLAN_RECORD) or bool(self.store.names("shards"))

    def forget(self, stage: Stage, reasons: frozenset[str]) -> int:
        """Take back commits of shards in which rows failed for one of `reasons`, so that they are
        done again; returns how many."""
        taken = [record for record in self.records(stage) if reasons & set(record.reasons)]
        for record in taken:
            self.store.delete(record.name)
        return len(taken)

    def clean(self) -> list[str]:
        """Remove what no record names: files of killed attempts. Returns their names."""
        live = {
            part.name
            for stage in ("select", "score")
            for record in self.records(stage)
            for part in record.parts.values()
        }
        orphans = [
            name for folder in PART_FOLDERS for name in self.store.names(folder) if name not in live
        ]
        for name in orphans:
            self.store.delete(name)
        self.store.delete_unfinished()
        return orphans

    def read_json(self, name: str) -> dict[str, Any] | None:
        """A JSON file of the run; None where there is none."""
        try:
            content: dict[str, Any] = json.loads(self.store.read(name))
        except FileNotFoundError:
            return None
        except ValueError as error:
            raise CorruptRunError(f"{name}: not JSON: {error}") from error
        return content

    def write_json(self, name: str, content: dict[str, Any]) -> None:
        """Write a JSON file of the run."""
        self.store.write(name, json.dumps(content, indent=2).encode() + b"\n")
