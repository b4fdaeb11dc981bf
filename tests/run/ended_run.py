"""A small run in order, made by hand, and what its tests damage it with."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from lenspipe.catalogue.candidates import Rule, StampBatch
from lenspipe.contracts import InputSpec, failure_schema, score_schema
from lenspipe.run.commit_log import encode
from lenspipe.run.shard_record import Part, ShardRecord
from lenspipe.run.verify import verify
from lenspipe.run_directory import PLAN_RECORD, RUN, RunDirectory
from lenspipe.stages.planning import make_plan, read_rows
from lenspipe.stages.publish import PublishSettings
from tests.stages.test_planning import selected

SPEC = InputSpec("image", ("g", "r"), 4, 0.25, 25.0)
KEPT = "photometry_score"
SETTINGS = PublishSettings(
    "toy", Rule(top=4, keep=3), (SPEC,), ("red",), partition_rows=4, keep_columns=(KEPT,)
)
MEMBERS = ("resnet-a",)
MODEL_HASH = "0123456789abcdef"


def begin(folder: Path, state: str) -> RunDirectory:
    """A run in order: 20 rows in, 12 selected, 11 scored, 1 failed."""
    run = RunDirectory(str(folder))
    content = {"state": state, "inputs": {"rows": 20}, "survey": {"cuts": {"red": "g > r"}}}
    run.write_json(RUN, {**content, "models": {"ensemble": MODEL_HASH}})
    part = run.write_part("select", 0, 20, selected(list(range(12)), [0] * 12))
    removed = {"network": 5, "cut:red:false": 3}
    counts = {"rows_in": 20, "rows_out": 12, "rows_failed": 0}
    run.commit(
        ShardRecord(
            stage="select", start=0, stop=20, removed=removed, parts={"select": part}, **counts
        )
    )
    make_plan(run, [part.name], 6, workers=1)
    for start, stop, failed in ((0, 6, 0), (6, 12, 1)):
        run.commit(score(run, start, stop, failed))
    return run


def score(run: RunDirectory, start: int, stop: int, failed: int) -> ShardRecord:
    rows = read_rows(run, (start, stop))
    scored = run.write_part("scores", start, stop, score_table(rows.slice(failed)))
    parts = {"scores": scored}
    if failed:
        parts["failures"] = run.write_part("failures", start, stop, failure_table(rows[:failed]))
    return ShardRecord(
        stage="score",
        start=start,
        stop=stop,
        rows_in=stop - start,
        rows_out=stop - start - failed,
        rows_failed=failed,
        reasons={"not_found": failed} if failed else {},
        parts=parts,
    )


def score_table(rows: pa.Table) -> pa.Table:
    n = rows.num_rows
    logit = rows["photometry_score"].to_numpy()
    values = {name: rows[name] for name in ("object_id", "ra", "dec", "healpix_29")}
    values |= {"score_resnet_a": logit, "score": logit, "probability": 1 / (1 + np.exp(-logit))}
    values |= {"flags": np.zeros(n, np.int32), "model_hash": [MODEL_HASH] * n}
    return pa.table(values, schema=score_schema(pa.int64(), MEMBERS))


def failure_table(rows: pa.Table) -> pa.Table:
    values = {name: rows[name] for name in ("object_id", "ra", "dec", "healpix_29")}
    told = {"stage": "score", "reason": "not_found", "detail": "no such tile"}
    values |= {name: [text] * rows.num_rows for name, text in told.items()}
    return pa.table(values, schema=failure_schema(pa.int64()))


def stamps(table: pa.Table) -> Iterator[StampBatch]:
    ids = table["object_id"].to_pylist()
    image = np.ones((len(ids), *SPEC.shape), np.float32)
    image *= np.arange(1, len(ids) + 1)[:, None, None, None]
    seen = np.ones((len(ids), 2), np.float32)
    yield StampBatch(ids, {"image": image}, image[:, 0], seen, [("resnet-a", 2)])


def shards(run: RunDirectory) -> list[ShardRecord]:
    return run.records("score")


def one(run: RunDirectory, folder: str, suffix: str) -> str:
    """The first file below a folder whose name ends so."""
    return next(name for name in run.store.names(folder) if name.endswith(suffix))


def edit(run: RunDirectory, name: str, change: Callable[[dict[str, Any]], None]) -> None:
    content = run.read_json(name)
    assert content is not None
    change(content)
    run.write_json(name, content)


def rewrite(run: RunDirectory, name: str, change: Callable[[pa.Table], pa.Table]) -> None:
    with run.store.writing(name) as path:
        pq.write_table(change(run.read_part(name)), path)


def rewrite_records(run: RunDirectory, name: str, *records: ShardRecord) -> None:
    """Other records in a file of the log, sealed as if they belonged there."""
    run.store.write(name, encode(records))


def flip(run: RunDirectory, name: str) -> None:
    data = bytearray(run.store.read(name))
    data[len(data) // 2] ^= 1
    run.store.write(name, bytes(data))


def sign(run: RunDirectory, part: Part) -> Part:
    """Makes an entry of a record that of the file as it is now."""
    data = run.store.read(part.name)
    signed = {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    return part.model_copy(update=signed)


def sign_plan(run: RunDirectory, plan: dict[str, Any]) -> None:
    plan["files"] = [sign(run, Part(**file)).model_dump() for file in plan["files"]]


def sign_all(run: RunDirectory) -> None:
    edit(run, PLAN_RECORD, lambda plan: sign_plan(run, plan))
    for segment in list(run.segments("score")):
        [record] = segment.records
        parts = {folder: sign(run, part) for folder, part in record.parts.items()}
        rewrite_records(run, segment.name, record.model_copy(update={"parts": parts}))


def assert_told(run: RunDirectory, place: str) -> None:
    """`verify` tells of the place, in one line as of all else."""
    found = verify(run)
    assert any(line.startswith(place) for line in found), found
    assert all("\n" not in line for line in found)
