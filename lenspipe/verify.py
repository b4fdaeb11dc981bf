"""Proof from the files that a run lost nothing and counted nothing twice."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import duckdb
import pyarrow.dataset as pads
import pyarrow.parquet as pq

from lenspipe.errors import CorruptRunError
from lenspipe.intervals import pending
from lenspipe.planning import Plan, read_plan
from lenspipe.run_directory import PART_FOLDERS, RUN, Part, RunDirectory, ShardRecord

_THREADS = 8


def verify(run: RunDirectory) -> list[str]:
    """Everything that is wrong with a run, one line each, with the place; empty when all is well.

    Every record balances and its part files are there, whole and unchanged; records cover catalogue
    and plan once; every selected source is scored or failed, once; no file is foreign.
    """
    identity = run.read_json(RUN)
    if identity is None:
        return [f"{RUN}: not there: no run was begun in {run.url}"]
    try:
        plan = read_plan(run)
        select, score = run.records("select"), run.records("score")
        found = list(_accounting(identity["inputs"]["rows"], plan, select, score))
    except CorruptRunError as error:
        return [str(error)]
    parts = [part for record in (*select, *score) for part in record.parts.values()]
    with ThreadPoolExecutor(_THREADS) as pool:
        found += [line for line in pool.map(lambda part: _check_part(run, part), parts) if line]
    live = {part.name for part in parts}
    found += [
        f"{name}: a file that no commit record names"
        for folder in PART_FOLDERS
        for name in run.store.names(folder)
        if name not in live
    ]
    return found or list(_check_ids(run, plan, score))


def _accounting(
    sources_in: int, plan: Plan | None, select: list[ShardRecord], score: list[ShardRecord]
) -> Iterator[str]:
    for record in (*select, *score):
        if not record.balanced:
            yield f"{record.name}: {record.rows_in} rows in, others out: {record.removed}"
        for folder, rows in (("select", record.rows_out), ("failures", record.rows_failed)):
            name = "scores" if folder == "select" and record.stage == "score" else folder
            held = record.parts[name].rows if name in record.parts else 0
            if held != rows:
                yield f"{record.name}: says {rows} rows, its file of {name} holds {held}"
    for start, stop in pending([(0, sources_in)], [(r.start, r.stop) for r in select]):
        yield f"select: no commit for catalogue rows {start} to {stop}"
    if plan is None:
        yield "plan: not made yet"
        return
    selected = sum(record.rows_out for record in select)
    if plan.rows != selected:
        yield f"plan: {plan.rows} rows, but {selected} were selected"
    for start, stop in pending([(0, plan.rows)], [(r.start, r.stop) for r in score]):
        yield f"score: no commit for rows {start} to {stop} of the plan"


def _check_part(run: RunDirectory, part: Part) -> str:
    try:
        data = run.store.read(part.name)
    except FileNotFoundError:
        return f"{part.name}: lost: its commit record names it"
    if len(data) != part.bytes or hashlib.sha256(data).hexdigest() != part.sha256:
        return f"{part.name}: changed: size or checksum is not that of its commit record"
    with run.store.open(part.name) as file:
        rows = pq.ParquetFile(file).metadata.num_rows
    return "" if rows == part.rows else f"{part.name}: {rows} rows, its record says {part.rows}"


def _check_ids(run: RunDirectory, plan: Plan | None, score: list[ShardRecord]) -> Iterator[str]:
    """Every id of the plan among scores and failures as often as it was selected."""
    if plan is None or not plan.rows:
        return
    tables = {
        "planned": [name for name in run.store.names("plan") if name.endswith(".parquet")],
        "scored": run.part_names("scores", score),
        "failed": run.part_names("failures", score),
    }
    with duckdb.connect() as connection:
        for table, names in tables.items():
            if not names:
                connection.execute(
                    f"CREATE VIEW {table} AS SELECT object_id FROM planned LIMIT 0"  # noqa: S608  # our own names
                )
                continue
            paths = [run.store.path(name) for name in names]
            connection.register(
                table,
                pads.dataset(paths, filesystem=run.store.arrow_filesystem(), format="parquet"),
            )
        wrong = connection.execute(
            """SELECT object_id, sum(planned), sum(scored), sum(failed) FROM (
                SELECT object_id, 1 AS planned, 0 AS scored, 0 AS failed FROM planned
                UNION ALL SELECT object_id, 0, 1, 0 FROM scored
                UNION ALL SELECT object_id, 0, 0, 1 FROM failed
            ) GROUP BY object_id
            HAVING sum(planned) <> sum(scored) + sum(failed) OR sum(scored) > 1
            ORDER BY object_id LIMIT 20"""
        ).fetchall()
    for object_id, planned, scored, failed in wrong:
        yield (
            f"object_id {object_id}: selected {planned} times, "
            f"scored {scored} times, failed {failed} times"
        )
