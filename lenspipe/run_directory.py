"""Every name in a run directory, and how a shard is committed.

A worker writes part files under names that no other attempt uses; the driver, the only one that
commits, then writes the shard's record, which names them with their checksums, into the log of the
stage. What no record names does not exist: a killed attempt leaves nothing that counts.
"""

from __future__ import annotations

import hashlib
import json
import re
import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from io import BytesIO
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from lenspipe.errors import CorruptRunError, InputError
from lenspipe.redaction import redact, redact_values
from lenspipe.run.commit_log import FOLDER as LOG
from lenspipe.run.commit_log import CommitLog, Segment, is_record_file
from lenspipe.run.shard_record import Part, ShardRecord, Stage
from lenspipe.storage.store import Store, is_damage

__all__ = ["Part", "RunDirectory", "ShardRecord", "Stage"]

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
GRADES = "grades.sqlite"  # what people said; no run writes or erases it
# The file of each without which a reader finds nothing there.
PROPERTIES, ZARR_ROOT = "hats.properties", "zarr.json"
REPORT = "report/index.html"
KNOWN = "known_lenses.parquet"

STAGES: tuple[Stage, ...] = ("select", "score")


def plan_name(index: int) -> str:
    """File of the plan that holds rows from index * PLAN_FILE_ROWS on."""
    return f"plan/selected-{index:06d}.parquet"


# Of JSON files: texts in which every letter counts, so that none is hidden. Two cuts that differ
# in what looks like a credential are two cuts.
VERBATIM = frozenset({"survey.cuts"})
# Folders whose files exist only by the word of a record.
PART_FOLDERS = ("select", "scores", "failures")
# Folders that a run replaces as a whole and that `--fresh` erases.
WRITTEN_FOLDERS = (LOG, "plan", *PART_FOLDERS, CATALOGUE, CANDIDATES, "report")

# Of these the folder goes as a whole, when a product is made anew or a run erased.
REPLACED_FOLDERS = (CATALOGUE, CANDIDATES, "report")
_PART = re.compile(rf"(?:{'|'.join(PART_FOLDERS)})/part-\d{{12,}}-\d{{12,}}-[0-9a-f]{{8}}\.parquet")
_PLAN_FILE = re.compile(r"plan/selected-\d{6,}\.parquet")


_CHECKERS = 8  # files that are read at the same time where all of them are checked


def is_ours(name: str) -> bool:
    """Whether a file below the run is called as part files, records and the plan are."""
    known = _PART.fullmatch(name) or _PLAN_FILE.fullmatch(name)
    return bool(known) or name == PLAN_RECORD or is_record_file(name)


@contextmanager
def reading(name: str) -> Iterator[None]:
    """CorruptRunError, with what to do about it, where Parquet file `name` of the run turns out
    damaged."""
    try:
        yield
    except Exception as error:
        if not is_damage(error):
            raise
        raise CorruptRunError(f"{name}: damaged: {error}: {_remedy(name)}") from error


def _remedy(name: str) -> str:
    if name.startswith("plan/"):
        return "lenspipe run --fresh begins anew"
    folder = name.partition("/")[0]
    does = "does its rows again" if folder in PART_FOLDERS else "makes it anew"
    return f"lenspipe run --retry-failed {does}"


class RunDirectory:
    """Reading and writing one run's files; see the module's docstring for the protocol."""

    def __init__(self, url: str) -> None:
        self.store = Store(url)
        self._logs = {stage: CommitLog(self.store, stage) for stage in STAGES}

    @property
    def url(self) -> str:
        """Where the run is."""
        return self.store.url

    def write_part(self, folder: str, start: int, stop: int, table: pa.Table) -> Part:
        """Write a part file that counts only once a record names it."""
        if folder == "failures":
            table = without_credentials(table)
        sink = BytesIO()
        pq.write_table(table, sink, compression="zstd", write_page_checksum=True)
        data = sink.getvalue()
        name = f"{folder}/part-{start:012d}-{stop:012d}-{uuid.uuid4().hex[:8]}.parquet"
        self.store.write(name, data)
        return Part(
            name=name,
            rows=table.num_rows,
            bytes=len(data),
            sha256=hashlib.sha256(data).hexdigest(),
        )

    def commit(self, *records: ShardRecord) -> None:
        """Make the part files of these shards of one stage count, all at once.

        May be repeated with the same records. StoppedError where another process committed since.
        """
        for record in records:
            if not record.balanced:
                raise CorruptRunError(f"{record.name}: rows in and out differ: {record}")
        self._logs[records[0].stage].append(records)

    def segments(self, stage: Stage) -> Iterator[Segment]:
        """Files of a stage's log in their order; CorruptRunError names one that is broken."""
        return self._logs[stage].segments()

    def commits(self, stage: Stage) -> Iterator[ShardRecord]:
        """Commits of a stage in the order in which they were made; few are in memory at once."""
        for segment in self.segments(stage):
            yield from segment.records

    def records(self, stage: Stage) -> list[ShardRecord]:
        """All commits of a stage, by start row. A run of many shards wants `commits`."""
        return sorted(self.commits(stage), key=lambda r: (r.start, r.stop))

    def part_names(self, folder: str, records: Iterable[ShardRecord]) -> list[str]:
        """Names of the committed, non-empty part files of one folder, in the order of rows."""
        parts = (record.parts[folder] for record in records if folder in record.parts)
        return sorted(part.name for part in parts if part.rows)

    def read_part(self, name: str, columns: Sequence[str] | None = None) -> pa.Table:
        """One part file as a table."""
        with reading(name), self.store.open(name) as file:
            return pq.read_table(file, columns=columns, page_checksum_verification=True)

    def read_folder(
        self, folder: str, stages: Sequence[Stage], columns: Sequence[str] | None = None
    ) -> pa.Table | None:
        """All committed rows of a folder; None where there are none. For tables that fit memory."""
        names = [n for s in stages for n in self.part_names(folder, self.commits(s))]
        if not names:
            return None
        return pa.concat_tables([self.read_part(name, columns) for name in names])

    def erase(self) -> None:
        """Remove what runs write, and nothing else that lies in the folder; the lock stays. Folders
        that a run replaces as a whole go as a whole.

        Records go before the files that they name, and `run.json` last and marked: whoever finds
        the mark goes on erasing.
        """
        self.write_json(RUN, {"state": ERASING})
        self.store.delete(PLAN_RECORD)
        unlisted = self._unlisted_parts()
        for log in self._logs.values():
            log.erase()
        for folder in REPLACED_FOLDERS:
            self.store.delete_folder(folder)
        ours = [name for name in self._written_names() if is_ours(name)]
        for name in {*ours, *unlisted}:
            self.store.delete(name)
        self.store.delete_unfinished(WRITTEN_FOLDERS)
        for name in (FUNNEL, METRICS, THRESHOLD, KNOWN, RUN):
            self.store.delete(name)
        self._logs = {stage: CommitLog(self.store, stage) for stage in STAGES}

    def is_begun(self) -> bool:
        """Whether anything was committed here."""
        return any(is_record_file(name) for name in self.store.names(LOG))

    def _is_a_run(self) -> bool:
        try:
            told = self.read_json(RUN) or {}
        except CorruptRunError:
            told = {}
        written = told.get("state") == ERASING or {"state", "layout"} <= set(told)
        return written or self.is_begun()

    def refuse_foreign(self) -> None:
        """InputError where no run was begun, yet files lie where a run would write."""
        if self._is_a_run():
            return
        if self.store.exists(RUN):
            raise InputError("output", f"a run, or no {RUN} of something else", f"{RUN} there")
        for folder in WRITTEN_FOLDERS:
            for name in self.store.names(folder)[:1]:
                expected = f"a run, or nothing in {folder}/, which a run replaces"
                raise InputError("output", expected, name)

    def mend(self) -> list[str]:
        """Give up the records of files of the logs that are broken or lost, so that their rows are
        done again; returns the files' names."""
        return [name for log in self._logs.values() for name in log.mend()]

    def forget(self, stage: Stage, reasons: frozenset[str]) -> int:
        """Take back commits of shards in which rows failed for one of `reasons`, so that they are
        done again; returns how many."""
        taken = 0
        for segment in self.segments(stage):
            kept = [record for record in segment.records if not reasons & set(record.reasons)]
            if len(kept) < len(segment.records):
                self._logs[stage].replace(segment, kept)
            taken += len(segment.records) - len(kept)
        return taken

    def forget_all(self, stage: Stage) -> int:
        """Take back all commits of a stage; returns how many there were."""
        taken = sum(1 for _ in self.commits(stage))
        self._logs[stage].erase()
        self._logs[stage] = CommitLog(self.store, stage)
        return taken

    def forget_lost(self) -> list[str]:
        """Take back commits whose part files are gone or are not what was written, so that they
        are done again; returns the names of those files. Every part file is read."""
        lost = list[str]()
        for stage in STAGES:
            for segment in self.segments(stage):
                gone = self._unsound(segment.records)
                if gone:
                    kept = [record for record in segment.records if record.name not in gone]
                    self._logs[stage].replace(segment, kept)
                    lost += [name for names in gone.values() for name in names]
        return lost

    def renew_lost_failures(self, table_of: Callable[[ShardRecord, str], pa.Table]) -> list[str]:
        """Write anew the failures of stage `select` whose files are lost or damaged, as many rows
        as their records say: for a run whose plan stands, which other rows would upset. table_of: a
        record and the lost file's name -> its rows. Returns the names of the lost files."""
        lost = list[str]()
        for segment in self.segments("select"):
            renewed = [self._with_failures(record, table_of, lost) for record in segment.records]
            if renewed != list(segment.records):
                self._logs["select"].replace(segment, renewed)
        return lost

    def _with_failures(
        self,
        record: ShardRecord,
        table_of: Callable[[ShardRecord, str], pa.Table],
        lost: list[str],
    ) -> ShardRecord:
        part = record.parts.get("failures")
        if part is None or self._is_sound(part):
            return record
        lost.append(part.name)
        made = self.write_part("failures", record.start, record.stop, table_of(record, part.name))
        return record.model_copy(update={"parts": {**record.parts, "failures": made}})

    def forget_products(self) -> None:
        """Let catalogue, candidates and the known lenses be made anew, whatever became of their
        files."""
        for name in (f"{CATALOGUE}/{PROPERTIES}", f"{CANDIDATES}/{ZARR_ROOT}", KNOWN):
            self.store.delete(name)

    def refuse_lost(self) -> None:
        """CorruptRunError where a file is gone that a record or the plan names: no waiting brings
        it."""
        there = self._part_files()
        for stage in STAGES:
            for record in self.commits(stage):
                for name in self._lost(record, there):
                    raise CorruptRunError(
                        f"{name}: lost: the record of {record.name} names it: lenspipe run "
                        "--retry-failed does its rows again"
                    )
        for file in (self.read_json(PLAN_RECORD) or {}).get("files", []):
            if not self.store.exists(file["name"]):
                raise CorruptRunError(
                    f"{file['name']}: lost: {PLAN_RECORD} names it: lenspipe run --fresh begins "
                    "anew"
                )

    def clean(self) -> list[str]:
        """Remove part files that no record names, those of killed attempts; returns their names.
        Files of other names are not a run's, and stay."""
        for log in self._logs.values():
            log.tidy()
        unnamed = self._part_files() - set(self._committed_files())
        orphans = sorted(name for name in unnamed if is_ours(name))
        for name in orphans:
            self.store.delete(name)
        self.store.delete_unfinished(WRITTEN_FOLDERS)
        return orphans

    def _unlisted_parts(self) -> set[str]:
        """Committed files that a listing does not show yet; none on a store whose listings are up
        to date."""
        try:
            return set(self._committed_files()) - self._part_files()
        except CorruptRunError:  # a record that is broken names nothing
            return set()

    def _lost(self, record: ShardRecord, there: set[str]) -> list[str]:
        """Part files of a record that are gone; `there`: what a listing shows, which may lag."""
        names = (part.name for part in record.parts.values())
        return [name for name in names if name not in there and not self.store.exists(name)]

    def _unsound(self, records: Sequence[ShardRecord]) -> dict[str, list[str]]:
        """Part files that are lost or not what their record says, by the record's name."""
        pairs = [(record.name, part) for record in records for part in record.parts.values()]
        found: dict[str, list[str]] = {}
        with ThreadPoolExecutor(_CHECKERS) as pool:
            sound = pool.map(lambda pair: self._is_sound(pair[1]), pairs)
            for (name, part), is_sound in zip(pairs, sound, strict=True):
                if not is_sound:
                    found.setdefault(name, []).append(part.name)
        return found

    def _is_sound(self, part: Part) -> bool:
        try:
            data = self.store.read(part.name)
        except FileNotFoundError:
            return False
        return (len(data), hashlib.sha256(data).hexdigest()) == (part.bytes, part.sha256)

    def _written_names(self) -> Iterator[str]:
        """Files in the folders whose files exist by the word of a record."""
        for folder in WRITTEN_FOLDERS:
            if folder not in REPLACED_FOLDERS:
                yield from self.store.names(folder)

    def _part_files(self) -> set[str]:
        return {name for folder in PART_FOLDERS for name in self.store.names(folder)}

    def _committed_files(self) -> Iterator[str]:
        for stage in STAGES:
            for record in self.commits(stage):
                yield from (part.name for part in record.parts.values())

    def read_json(self, name: str) -> dict[str, Any] | None:
        """A JSON file of the run; None where there is none."""
        try:
            content = json.loads(self.store.read(name))
        except FileNotFoundError:
            return None
        except ValueError as error:
            raise CorruptRunError(f"{name}: not JSON: {error}") from error
        if not isinstance(content, dict):
            raise CorruptRunError(f"{name}: expected an object, found a {type(content).__name__}")
        return content

    def write_json(self, name: str, content: dict[str, Any]) -> None:
        """Write a JSON file of the run."""
        told = redact_values(content, VERBATIM)
        self.store.write(name, json.dumps(told, indent=2).encode() + b"\n")


def without_credentials(failures: pa.Table) -> pa.Table:
    """Failures whose details may repeat what a store or a library said of a URL."""
    column = failures.schema.get_field_index("detail")
    if column < 0:
        return failures
    field = failures.schema.field(column)
    texts = failures[column].to_pylist()
    hidden = {text: redact(text) for text in set(texts) if text is not None}
    told = [hidden.get(text) for text in texts]
    return failures.set_column(column, field, pa.array(told, field.type))
