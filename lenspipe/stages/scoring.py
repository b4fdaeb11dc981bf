"""Stage `score` for one shard, as plain functions: rows of the plan in, part files out."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from lenspipe.contracts import (
    POSITION_FIELDS,
    CutoutBatch,
    Failure,
    InputSpec,
    ProviderName,
    Reason,
    failure_schema,
    member_column,
    score_schema,
)
from lenspipe.cutouts.base import Reader, ReaderOptions
from lenspipe.cutouts.planned import open_planned
from lenspipe.errors import InputError
from lenspipe.intervals import Interval, halves
from lenspipe.models.drift import count_scores
from lenspipe.models.ensemble import Ensemble, Prepared, load_ensemble
from lenspipe.processes.rehearsal import rehearse
from lenspipe.run_directory import RunDirectory, ShardRecord
from lenspipe.stages.planning import DUPLICATE, read_rows

_ID_COLUMNS = ("object_id", *(position.name for position in POSITION_FIELDS))


@dataclass(frozen=True)
class PlanRows:
    """Rows of the plan: the unit of work of stage `score`."""

    start: int
    stop: int

    @property
    def interval(self) -> Interval:
        """The rows, half open."""
        return (self.start, self.stop)

    def split(self) -> list[PlanRows]:
        """Its two halves; itself where it is one row."""
        if self.stop - self.start < 2:
            return [self]
        return [PlanRows(*half) for half in halves(self.interval)]


@dataclass(frozen=True)
class ScoreSettings:
    """What a scorer needs to know; travels to the actors. base: folder of relative paths.

    model_hash: of the ensemble that the run was begun with. gpu_share: of one device. prevalence:
    see `Survey`.
    """

    run_url: str
    cutouts: ReaderOptions
    ensemble: str
    base: str
    provider: ProviderName = "auto"
    threads: int = 1
    batch_size: int | None = None
    inputs: tuple[InputSpec, ...] = ()
    model_hash: str = ""
    gpu_share: float = 1.0
    prevalence: float | None = None


@dataclass(frozen=True)
class ShardPixels:
    """A shard that was read: its rows, the pixels of those without a repeated id, the seconds."""

    sources: pa.Table
    repeated: np.ndarray
    batch: CutoutBatch
    seconds: float


@dataclass(frozen=True)
class PixelReading:
    """Reads shards. Safe in several threads; a process opens its reader once."""

    settings: ScoreSettings

    def read_nothing(self) -> None:
        """All that a shard does, for no rows: what Python imports on the way, and the reader's
        opening, take longer than a real shard does."""
        rows = read_rows(RunDirectory(self.settings.run_url), (0, 1)).slice(0, 0)
        self._reader().read(rows, self.settings.inputs)

    def __call__(self, work: PlanRows) -> ShardPixels:
        """Rows of the plan with their pixels; a row that cannot be read is a failure in it."""
        began = time.perf_counter()
        rows = read_rows(RunDirectory(self.settings.run_url), work.interval)
        repeated = rows[DUPLICATE].to_numpy()
        wanted = rows.filter(pc.invert(rows[DUPLICATE]))
        batch = self._reader().read(wanted, self.settings.inputs)
        return ShardPixels(rows, repeated, batch, time.perf_counter() - began)

    def _reader(self) -> Reader:
        return open_once(self.settings.cutouts, self.settings.base)


_OPENED: dict[tuple[str, str], Reader] = {}
_OPENING = threading.Lock()


def open_once(options: ReaderOptions, base: str) -> Reader:
    """The process's reader of these options: opening it may read the headers of every tile."""
    key = (options.model_dump_json(), base)
    with _OPENING:
        if key not in _OPENED:
            _OPENED[key] = open_planned(options, base)
        return _OPENED[key]


@dataclass(frozen=True)
class ScorerFactory:
    """Builds a `Scorer` inside an actor. reads: whether it reads pixels for itself."""

    settings: ScoreSettings
    reads: bool = True

    def __call__(self) -> Scorer:
        """Open ensemble and reader; ProviderError where the device is not the one asked for."""
        scorer = Scorer(self.settings)
        if self.reads:
            rehearse(scorer.read.read_nothing)
        return scorer


class Scorer:
    """Scores shards. Several threads may call it: one infers while the others read and write."""

    def __init__(self, settings: ScoreSettings) -> None:
        self._run = RunDirectory(settings.run_url)
        self.read = PixelReading(settings)
        self._ensemble = open_ensemble(settings)
        self._stated = self._ensemble.description.spec.score_distribution
        self._inference = threading.Lock()
        self._halvings = 0

    def __call__(self, work: PlanRows, pixels: ShardPixels | None = None) -> ShardRecord:
        """Read (unless `pixels` are handed over), score, write the part files.

        Returns the shard's record, which counts only once the driver has committed it.
        """
        pixels = pixels or self.read(work)
        read = time.perf_counter()
        prepared = self._ensemble.prepare(pixels.batch.images)
        waiting = time.perf_counter()
        with self._inference:
            began = time.perf_counter()
            scores, failures = score_rows(self._ensemble, pixels, prepared)
            scored = time.perf_counter()
            halvings = self._ensemble.halvings - self._halvings
            self._halvings += halvings
        parts = {
            folder: self._run.write_part(folder, *work.interval, table)
            for folder, table in (("scores", scores), ("failures", failures))
            if table.num_rows
        }
        return ShardRecord(
            stage="score",
            start=work.start,
            stop=work.stop,
            rows_in=pixels.sources.num_rows,
            rows_out=scores.num_rows,
            rows_failed=failures.num_rows,
            reasons=dict(Counter(failures["reason"].to_pylist())),
            parts=parts,
            seconds={
                "read": pixels.seconds,
                "normalise": waiting - read,
                "wait": began - waiting,
                "infer": scored - began,
                "write": time.perf_counter() - scored,
            },
            cutouts=len(pixels.batch),
            batches=-(-len(pixels.batch) // self._ensemble.members[0].batch_size),
            halvings=halvings,
            bytes_read=pixels.batch.bytes_read,
            scores=count_scores(self._stated, scores["score"].to_numpy()),
        )


def open_ensemble(settings: ScoreSettings) -> Ensemble:
    """The run's ensemble; InputError where its files are no longer those that the run began with.

    ProviderError where the device is not the one asked for.
    """
    ensemble = load_ensemble(
        settings.ensemble,
        settings.base,
        settings.provider,
        threads=settings.threads,
        batch_size=settings.batch_size,
        gpu_share=settings.gpu_share,
        prevalence=settings.prevalence,
    )
    if settings.model_hash and ensemble.model_hash != settings.model_hash:
        raise InputError(
            f"ensemble {settings.ensemble}",
            f"the models that the run began with ({settings.model_hash})",
            f"others ({ensemble.model_hash})",
        )
    return ensemble


def score_rows(
    ensemble: Ensemble, pixels: ShardPixels, prepared: Prepared | None = None
) -> tuple[pa.Table, pa.Table]:
    """Score a shard's pixels: (scores, failures), every row of the shard in one of the two.

    prepared: what `Ensemble.prepare` made of them, where that was done beforehand.
    """
    wanted = np.flatnonzero(~pixels.repeated)  # row of the batch -> row of the shard
    batch = pixels.batch
    found = ensemble.score(prepared or batch.images)
    failures = [
        Failure(int(row), Reason.DUPLICATE_ID, "another row has this id and was taken")
        for row in np.flatnonzero(pixels.repeated)
    ]
    failures += [Failure(int(wanted[f.row]), f.reason, f.detail) for f in batch.failures]
    image_rows = wanted[batch.rows]
    failures += [
        Failure(int(image_rows[row]), Reason.MEMBER_ERROR, detail)
        for row, detail in found.failed.items()
    ]
    finite = np.isfinite(found.score) & np.isfinite(found.probability)
    failures += [
        Failure(int(image_rows[row]), Reason.NON_FINITE_SCORE, "the ensemble's score is no number")
        for row in np.flatnonzero(~finite)
        if int(row) not in found.failed
    ]
    rows = pa.array(image_rows[finite])
    columns = {name: pixels.sources[name].take(rows) for name in _ID_COLUMNS}
    for index, member in enumerate(ensemble.member_names):
        columns[member_column(member)] = pa.array(found.members[finite, index])
    columns["score"] = pa.array(found.score[finite])
    columns["probability"] = pa.array(found.probability[finite])
    columns["flags"] = pa.array(batch.flags[finite].astype(np.int32))
    columns["model_hash"] = pa.array([ensemble.model_hash] * len(rows), pa.string())
    id_type = pixels.sources.schema.field("object_id").type
    schema = score_schema(id_type, ensemble.member_names, ensemble.prevalence)
    return pa.table(columns, schema=schema), failure_table(pixels.sources, failures, "score")


def failure_table(sources: pa.Table, failures: Sequence[Failure], stage: str) -> pa.Table:
    """Failures as rows of `failures/`, in the order of the table that they point into."""
    ordered = sorted(failures, key=lambda failure: failure.row)
    rows = pa.array([failure.row for failure in ordered], pa.int64())
    columns = {name: sources[name].take(rows) for name in _ID_COLUMNS}
    columns["stage"] = pa.array([stage] * len(ordered), pa.string())
    columns["reason"] = pa.array([str(failure.reason) for failure in ordered], pa.string())
    columns["detail"] = pa.array([failure.detail for failure in ordered], pa.string())
    return pa.table(columns, schema=failure_schema(sources.schema.field("object_id").type))


@dataclass(frozen=True)
class Quarantine:
    """Makes the record of rows that no attempt could score: all failures with that reason."""

    run: RunDirectory

    def __call__(self, work: PlanRows, reason: Reason, detail: str) -> ShardRecord:
        """Write the failure rows."""
        sources = read_rows(self.run, work.interval)
        failed = [Failure(row, reason, detail) for row in range(sources.num_rows)]
        table = failure_table(sources, failed, "score")
        part = self.run.write_part("failures", *work.interval, table)
        return ShardRecord(
            stage="score",
            start=work.start,
            stop=work.stop,
            rows_in=sources.num_rows,
            rows_out=0,
            rows_failed=sources.num_rows,
            reasons={str(reason): sources.num_rows},
            parts={"failures": part},
        )
