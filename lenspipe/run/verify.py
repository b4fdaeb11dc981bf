"""Proof from the files that a run lost nothing and counted nothing twice."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import islice
from typing import BinaryIO, Literal

import pyarrow.parquet as pq
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from lenspipe.errors import CorruptRunError
from lenspipe.intervals import Interval, Intervals, pending
from lenspipe.run.commit_log import FOLDER as LOG
from lenspipe.run.shard_record import Part, ShardRecord, Stage
from lenspipe.run.verify_identity import check_cuts, check_ensemble
from lenspipe.run.verify_products import (
    check_candidates,
    check_catalogue,
    check_flagged,
    check_funnel,
    check_known,
)
from lenspipe.run.verify_rows import check_ids
from lenspipe.run_directory import (
    CANDIDATES,
    CATALOGUE,
    FUNNEL,
    KNOWN,
    PART_FOLDERS,
    PLAN_RECORD,
    RUN,
    STAGES,
    RunDirectory,
)
from lenspipe.stages.planning import Plan, broken, read_plan

_THREADS = 8
_BLOCK_BYTES = 1 << 22
_SHOWN = 20  # a run that is wrong throughout is told by some overlaps


class _Inputs(BaseModel):
    model_config = ConfigDict(frozen=True)
    rows: int = Field(ge=0)


class _Survey(BaseModel):
    model_config = ConfigDict(frozen=True)
    cuts: dict[str, str] = Field(default_factory=dict)
    known_lenses: dict[str, object] | None = None


class _Models(BaseModel):
    model_config = ConfigDict(frozen=True)
    ensemble: str


class _Run(BaseModel):
    """What of run.json the proof rests on."""

    model_config = ConfigDict(frozen=True)
    state: Literal["running", "done", "finished_with_failures"]
    inputs: _Inputs
    survey: _Survey
    models: _Models


def verify(run: RunDirectory) -> list[str]:
    """Everything that is wrong with a run, one line each, with the place; empty when all is well.

    Every record balances and its part files are there, whole and unchanged, those of the plan too;
    records cover catalogue and plan once; every selected source is planned, and scored or failed,
    once; no file is foreign; cuts and ensemble are those of run.json. Of a run that ended, funnel,
    catalogue and candidates are what these files give. Products are compared with the rows only
    where the rows are sound.
    """
    try:
        told = _read_run(run)
        plan = read_plan(run)
        found = list(_accounting(run, told.inputs.rows, plan))
    except CorruptRunError as error:
        return [str(error)]
    finished = told.state != "running"
    other_cuts = list(check_cuts(run, told.survey.cuts))
    found += other_cuts
    if finished:
        cuts = () if other_cuts else told.survey.cuts  # then by the names that records have
        found += _faults(FUNNEL, lambda: check_funnel(run, cuts))
    damaged, foreign = _check_files(run, plan)
    found += damaged + foreign
    if damaged or plan is None:
        return found
    scores = run.part_names("scores", run.commits("score"))
    found += _faults("object_id", lambda: check_ids(run, plan))
    found += _faults("model_hash", lambda: check_ensemble(run, scores, told.models.ensemble))
    if finished:
        catalogue = _faults(CATALOGUE, lambda: check_catalogue(run, scores))
        found += catalogue
        found += _faults(CANDIDATES, lambda: check_candidates(run, scores))
        listed = told.survey.known_lenses is not None
        found += _faults(KNOWN, lambda: check_known(run, scores, listed))
        if not catalogue and listed:
            found += _faults(KNOWN, lambda: check_flagged(run))
    return list(dict.fromkeys(found))  # two checks may meet the same broken file


def _faults(where: str, check: Callable[[], Iterable[str]]) -> list[str]:
    try:
        return list(check())
    except CorruptRunError as error:
        return [str(error)]
    except Exception as error:  # every library says in its own way what is broken
        return [f"{where}: cannot be read: {type(error).__name__}: {' '.join(str(error).split())}"]


def _read_run(run: RunDirectory) -> _Run:
    try:
        return _Run.model_validate_json(run.store.read(RUN))
    except FileNotFoundError:
        raise CorruptRunError(f"{RUN}: not there: no run was begun in {run.url}") from None
    except ValidationError as error:
        raise broken(RUN, error) from error


def _accounting(run: RunDirectory, sources_in: int, plan: Plan | None) -> Iterator[str]:
    yield from _check_stage(run, "select", "the catalogue", sources_in)
    if plan is None:
        yield f"{PLAN_RECORD}: not made yet"
        return
    selected = sum(record.rows_out for record in run.commits("select"))
    if plan.rows != selected:
        yield f"{PLAN_RECORD}: {plan.rows} rows, but {selected} were selected"
    yield from _check_stage(run, "score", "the plan", plan.rows)


def _check_stage(run: RunDirectory, stage: Stage, what: str, rows: int) -> Iterator[str]:
    for segment in run.segments(stage):
        for record in segment.records:
            for fault in _check_record(record, what, rows):
                yield f"{segment.name}: {record.name}: {fault}"
    done = Intervals((record.start, record.stop) for record in run.commits(stage))
    yield from _check_overlaps(run, stage, done)
    for start, stop in pending([(0, rows)], done):
        yield f"{stage}: no commit for rows {start} to {stop} of {what}"


def _check_overlaps(run: RunDirectory, stage: Stage, done: Intervals) -> Iterator[str]:
    """Rows that count twice, with the two files of the log that say so."""
    overlaps = list(islice(done.overlaps(), _SHOWN))
    if not overlaps:
        return
    names: dict[Interval, list[str]] = {at: [] for pair in overlaps for at in pair}
    for segment in run.segments(stage):
        for record in segment.records:
            names.get((record.start, record.stop), []).append(segment.name)
    for early, late in overlaps:
        yield (
            f"{names[late][-1]}: {stage} rows {late[0]} to {late[1]}: count twice: "
            f"{names[early][0]} has rows {early[0]} to {early[1]}"
        )


def _check_record(record: ShardRecord, what: str, rows: int) -> Iterator[str]:
    if record.start < 0 or record.stop > rows:
        yield f"beyond the {rows} rows of {what}"
    if record.rows_in != record.stop - record.start:
        yield f"{record.rows_in} rows in, of {record.stop - record.start}"
    if not record.balanced or any(count < 0 for count in record.removed.values()):
        yield f"{record.rows_in} rows in, others out: {record.removed}"
    out = "select" if record.stage == "select" else "scores"
    for folder, count in ((out, record.rows_out), ("failures", record.rows_failed)):
        held = record.parts[folder].rows if folder in record.parts else 0
        if held != count:
            yield f"says {count} rows, its file of {folder} holds {held}"


def _check_files(run: RunDirectory, plan: Plan | None) -> tuple[list[str], list[str]]:
    """What is wrong with files of the run, and which files are not the run's."""
    live = {segment.name for stage in STAGES for segment in run.segments(stage)}
    folders: tuple[str, ...] = (*PART_FOLDERS, LOG)
    if plan is not None:
        folders += ("plan",)
        live.add(PLAN_RECORD)
    found: list[str] = []
    with ThreadPoolExecutor(_THREADS) as pool:
        for parts in _groups(_parts(run, plan)):
            live |= {part.name for part in parts}
            for lines in pool.map(partial(_part_faults, run), parts):
                found += lines
    foreign = [name for folder in folders for name in run.store.names(folder) if name not in live]
    return found, [f"{name}: a file that no record names" for name in foreign]


def _parts(run: RunDirectory, plan: Plan | None) -> Iterator[Part]:
    for stage in STAGES:
        for record in run.commits(stage):
            yield from record.parts.values()
    if plan is not None:
        yield from plan.files


def _groups(parts: Iterator[Part]) -> Iterator[list[Part]]:
    """All at once would hold every part of a run of a million shards."""
    while group := list(islice(parts, 64 * _THREADS)):
        yield group


def _part_faults(run: RunDirectory, part: Part) -> list[str]:
    return _faults(part.name, lambda: _check_part(run, part))


def _check_part(run: RunDirectory, part: Part) -> Iterator[str]:
    try:
        file = run.store.open(part.name)
    except FileNotFoundError:
        yield f"{part.name}: lost: its record names it"
        return
    with file:
        if _size_and_checksum(file) != (part.bytes, part.sha256):
            yield f"{part.name}: changed: size or checksum is not that of its record"
            return
        rows = pq.ParquetFile(file).metadata.num_rows
        if rows != part.rows:
            yield f"{part.name}: {rows} rows, its record says {part.rows}"


def _size_and_checksum(file: BinaryIO) -> tuple[int, str]:
    digest, size = hashlib.sha256(), 0
    while block := file.read(_BLOCK_BYTES):
        digest.update(block)
        size += len(block)
    return size, digest.hexdigest()
