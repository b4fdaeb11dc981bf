"""A run whose sources and scores are drawn at random: everything else in it is real.

Planning, stages, commits and publishing are those of a survey; only cuts and pixels are left out,
so that what grows with rows and shards can be measured for any number of them.
"""

from __future__ import annotations

import io
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import MappingProxyType

import numpy as np
import pyarrow as pa

from lenspipe.bench.stage import opened
from lenspipe.catalogue.candidates import Rule, StampBatch
from lenspipe.config import Sources
from lenspipe.contracts import POSITION_FIELDS, Reason, score_schema, selected_schema
from lenspipe.healpix import healpix_29
from lenspipe.metrics import RunMetrics
from lenspipe.run.shard_record import ShardRecord
from lenspipe.run_directory import RUN, RunDirectory
from lenspipe.runtime import PoolOptions
from lenspipe.select.plan import plan_catalogue
from lenspipe.select.sources import list_parts
from lenspipe.stages.planning import Plan, read_rows
from lenspipe.stages.publish import PublishInfo, PublishSettings, publish
from lenspipe.stages.scoring import PlanRows
from lenspipe.stages.selecting import lay_out, stage_spec
from lenspipe.stages.stage import StageSpec, run_stage
from lenspipe.telling.events import Events
from lenspipe.telling.progress import JsonProgress

PART_ROWS = 500_000  # about what a part of a survey's catalogue holds
TILE_ROWS = 1000
MEMBERS = ("simulated",)
MODEL_HASH = "0123456789abcdef"
CUTS = {"all": "i_kron_mag > -99"}  # a cut that all rows pass
_ID_COLUMNS = ("object_id", *(field.name for field in POSITION_FIELDS))
SETTINGS = PublishSettings("simulated", Rule(top=1000, keep=100), inputs=())


def begin(run: RunDirectory, rows: int, cuts: Mapping[str, str] = MappingProxyType({})) -> None:
    """`run.json` of a run over a catalogue of so many rows."""
    content = {
        "state": "running",
        "updated": "",
        "inputs": {"rows": rows},
        "survey": {"name": "simulated", "cuts": dict(cuts)},
        "models": {"ensemble": MODEL_HASH},
    }
    run.write_json(RUN, content)


def write_selected(run: RunDirectory, rows: int, seed: int = 1) -> list[str]:
    """Commit stage `select` with so many rows in all; returns the names of its part files."""
    begin(run, rows)
    rng = np.random.default_rng(seed)
    for start in range(0, rows, PART_ROWS):
        stop = min(start + PART_ROWS, rows)
        part = run.write_part("select", start, stop, _selected(start, stop, rows, rng))
        counts = {"rows_in": stop - start, "rows_out": stop - start, "rows_failed": 0}
        run.commit(
            ShardRecord(stage="select", start=start, stop=stop, parts={"select": part}, **counts)
        )
    return run.part_names("select", run.commits("select"))


def _selected(start: int, stop: int, rows: int, rng: np.random.Generator) -> pa.Table:
    count = stop - start
    ra = rng.uniform(0.0, 360.0, count)
    dec = np.degrees(np.arcsin(rng.uniform(-1.0, 1.0, count)))
    columns = {
        "object_id": np.arange(start, stop) * 7919 % (1 << 40),
        "ra": ra,
        "dec": dec,
        "healpix_29": healpix_29(ra, dec),
        "photometry_score": rng.normal(size=count).astype(np.float32),
        "locality": rng.integers(0, max(1, rows // TILE_ROWS), count),
    }
    return pa.table(columns, schema=selected_schema(pa.int64()))


@dataclass(frozen=True)
class ScorerFactory:
    """Builds the callable inside an actor."""

    run_url: str

    def __call__(self) -> Callable[[PlanRows], ShardRecord]:
        """Opens the run once."""
        return partial(score, RunDirectory(self.run_url))


def score(run: RunDirectory, work: PlanRows) -> ShardRecord:
    """Scores that follow from the ids, in part files as a scorer writes them."""
    began = time.perf_counter()
    rows = read_rows(run, work.interval)
    read = time.perf_counter()
    part = run.write_part("scores", *work.interval, _scores(rows))
    return ShardRecord(
        stage="score",
        start=work.start,
        stop=work.stop,
        rows_in=rows.num_rows,
        rows_out=rows.num_rows,
        rows_failed=0,
        parts={"scores": part},
        seconds={"read": read - began, "write": time.perf_counter() - read},
    )


def _scores(rows: pa.Table) -> pa.Table:
    mixed = rows["object_id"].to_numpy().astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    logit = (mixed >> np.uint64(40)).astype(np.float32) / np.float32(1 << 20) - np.float32(12.0)
    columns = {name: rows[name] for name in _ID_COLUMNS}
    columns |= {"score_simulated": logit, "score": logit}
    columns |= {"probability": 1 / (1 + np.exp(-logit)), "flags": np.zeros(len(logit), np.int32)}
    columns |= {"model_hash": pa.array([MODEL_HASH] * len(logit))}
    return pa.table(columns, schema=score_schema(rows.schema.field("object_id").type, MEMBERS))


def select_catalogue(run: RunDirectory, file: Path, workers: int) -> None:
    """Stage `select` over a catalogue of `lenspipe.bench.select`, with `CUTS`."""
    parts = list_parts(Sources(path=str(file)), ".")
    plan = plan_catalogue(Sources(path=str(file)), CUTS, None, None, ".")
    begin(run, sum(part.rows for part in parts), CUTS)
    with opened(run, _events()) as ledger:
        run_stage(ledger, stage_spec(run, plan, PoolOptions(workers)), lay_out(parts))


def score_plan(run: RunDirectory, plan: Plan, workers: int) -> None:
    """Stage `score` over the plan: Ray, lock, commits, metrics and events as in a survey."""
    spec = StageSpec(
        stage="score",
        worker=ScorerFactory(run.url),
        quarantine=_never,
        options=PoolOptions(workers=workers, depth=2),
    )
    with opened(run, _events()) as ledger:
        run_stage(ledger, spec, [PlanRows(*shard) for shard in plan.shards])


def _never(work: PlanRows, reason: Reason, detail: str) -> ShardRecord:
    raise RuntimeError(f"a simulated shard failed: {work}: {reason}: {detail}")


def _events() -> Events:
    """The metrics and the event lines of a survey."""
    return Events(RunMetrics("simulated"), JsonProgress(io.StringIO()))


def publish_run(run: RunDirectory) -> PublishInfo:
    """Stage `publish` without pixels: catalogue, candidates, funnel, report."""
    info = publish(run, SETTINGS, _no_stamps)
    run.write_json(RUN, {**(run.read_json(RUN) or {}), "state": "done"})
    return info


def _no_stamps(_: pa.Table) -> Iterator[StampBatch]:
    yield from ()
