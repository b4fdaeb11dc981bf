"""Proof from the files that a run lost nothing and counted nothing twice."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import BinaryIO, Literal

import pyarrow.parquet as pq
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from lenspipe.errors import CorruptRunError
from lenspipe.intervals import pending
from lenspipe.planning import Plan, broken, read_plan
from lenspipe.run_directory import (
    CANDIDATES,
    CATALOGUE,
    FUNNEL,
    PART_FOLDERS,
    PLAN_RECORD,
    RUN,
    Part,
    RunDirectory,
    ShardRecord,
)
from lenspipe.verify_products import check_candidates, check_catalogue, check_funnel
from lenspipe.verify_rows import check_ids

_THREADS = 8
_BLOCK_BYTES = 1 << 22


class _Inputs(BaseModel):
    model_config = ConfigDict(frozen=True)
    rows: int = Field(ge=0)


class _Survey(BaseModel):
    model_config = ConfigDict(frozen=True)
    cuts: dict[str, str] = Field(default_factory=dict)


class _Run(BaseModel):
    """What of run.json the proof rests on."""

    model_config = ConfigDict(frozen=True)
    state: Literal["running", "done", "finished_with_failures"]
    inputs: _Inputs
    survey: _Survey


def verify(run: RunDirectory) -> list[str]:
    """Everything that is wrong with a run, one line each, with the place; empty when all is well.

    Every record balances and its part files are there, whole and unchanged, those of the plan too;
    records cover catalogue and plan once; every selected source is planned, and scored or failed,
    once; no file is foreign. Of a run that ended, funnel, catalogue and candidates are what these
    files give. Products are compared with the rows only where the rows are sound.
    """
    try:
        told = _read_run(run)
        plan = read_plan(run)
        select, score = run.records("select"), run.records("score")
        found = list(_accounting(told.inputs.rows, plan, select, score))
    except CorruptRunError as error:
        return [str(error)]
    finished = told.state != "running"
    if finished:
        found += _faults(FUNNEL, lambda: check_funnel(run, select, score, told.survey.cuts))
    damaged = _check_files(run, plan, select, score)
    if damaged or plan is None:
        return found + damaged
    scores = run.part_names("scores", score)
    found += _faults("object_id", lambda: check_ids(run, plan, select, score))
    if finished:
        found += _faults(CATALOGUE, lambda: check_catalogue(run, scores))
        found += _faults(CANDIDATES, lambda: check_candidates(run, scores))
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


def _accounting(
    sources_in: int, plan: Plan | None, select: list[ShardRecord], score: list[ShardRecord]
) -> Iterator[str]:
    for record in (*select, *score):
        yield from _check_record(record)
    yield from _cover("select", "the catalogue", sources_in, select)
    if plan is None:
        yield f"{PLAN_RECORD}: not made yet"
        return
    selected = sum(record.rows_out for record in select)
    if plan.rows != selected:
        yield f"{PLAN_RECORD}: {plan.rows} rows, but {selected} were selected"
    yield from _cover("score", "the plan", plan.rows, score)


def _check_record(record: ShardRecord) -> Iterator[str]:
    if record.rows_in != record.stop - record.start:
        yield f"{record.name}: {record.rows_in} rows in, of {record.stop - record.start}"
    if not record.balanced or any(count < 0 for count in record.removed.values()):
        yield f"{record.name}: {record.rows_in} rows in, others out: {record.removed}"
    out = "select" if record.stage == "select" else "scores"
    for folder, rows in ((out, record.rows_out), ("failures", record.rows_failed)):
        held = record.parts[folder].rows if folder in record.parts else 0
        if held != rows:
            yield f"{record.name}: says {rows} rows, its file of {folder} holds {held}"


def _cover(stage: str, what: str, rows: int, records: list[ShardRecord]) -> Iterator[str]:
    for start, stop in pending([(0, rows)], [(record.start, record.stop) for record in records]):
        yield f"{stage}: no commit for rows {start} to {stop} of {what}"
    for record in records:
        if record.start < 0 or record.stop > rows:
            yield f"{record.name}: beyond the {rows} rows of {what}"


def _check_files(
    run: RunDirectory, plan: Plan | None, select: list[ShardRecord], score: list[ShardRecord]
) -> list[str]:
    records = [*select, *score]
    parts = [part for record in records for part in record.parts.values()]
    folders: tuple[str, ...] = (*PART_FOLDERS, "shards")
    live = {record.name for record in records}
    if plan is not None:
        parts += plan.files
        folders += ("plan",)
        live.add(PLAN_RECORD)
    with ThreadPoolExecutor(_THREADS) as pool:
        checked = pool.map(lambda part: _faults(part.name, lambda: _check_part(run, part)), parts)
        found = [line for lines in checked for line in lines]
    live |= {part.name for part in parts}
    foreign = [name for folder in folders for name in run.store.names(folder) if name not in live]
    return found + [f"{name}: a file that no record names" for name in foreign]


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
