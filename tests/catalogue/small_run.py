"""A small run directory made of random tables, committed as the job commits."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
from hats.pixel_math.spatial_index import compute_spatial_index
from jaxtyping import Float64

from lenspipe.contracts import failure_schema, member_column, score_schema
from lenspipe.run_directory import RunDirectory, ShardRecord

MEMBERS = ("resnet-a", "vit-b")


def cap(
    n: int, ra: float, dec: float, radius_deg: float, seed: int = 0
) -> tuple[Float64[np.ndarray, " n"], Float64[np.ndarray, " n"]]:
    """Positions spread evenly over a small patch of sky."""
    rng = np.random.default_rng(seed)
    offsets = rng.uniform(-radius_deg, radius_deg, (2, n))
    dec_deg = np.clip(dec + offsets[0], -90, 90)
    return (ra + offsets[1] / np.cos(np.radians(dec))) % 360, dec_deg


def score_table(
    ra: Float64[np.ndarray, " n"],
    dec: Float64[np.ndarray, " n"],
    first_id: int = 0,
    id_type: pa.DataType | None = None,
    seed: int = 0,
) -> pa.Table:
    """Random scores with the schema of `scores/part-*.parquet`."""
    rng = np.random.default_rng(seed)
    n = len(ra)
    logits = rng.normal(-4, 2, n).astype(np.float32)
    ids = np.arange(first_id, first_id + n)
    kind = id_type or pa.int64()
    values = {
        "object_id": pa.array(ids) if pa.types.is_integer(kind) else [f"J{i:06d}" for i in ids],
        "ra": ra,
        "dec": dec,
        "healpix_29": compute_spatial_index(ra, dec),
        **{member_column(m): rng.normal(-4, 2, n).astype(np.float32) for m in MEMBERS},
        "score": logits,
        "probability": (1 / (1 + np.exp(-logits))).astype(np.float32),
        "flags": np.zeros(n, np.int32),
        "model_hash": ["0123456789abcdef"] * n,
    }
    return pa.table(values, schema=score_schema(kind, MEMBERS))


def commit_scores(
    run: RunDirectory, tables: Sequence[pa.Table], failed: Sequence[pa.Table] = ()
) -> list[str]:
    """Commit each table as one shard of stage `score`; returns the names of the score parts."""
    start = 0
    for index, table in enumerate(tables):
        lost = failed[index] if index < len(failed) else None
        rows_failed = 0 if lost is None else lost.num_rows
        stop = start + table.num_rows + rows_failed
        parts = {"scores": run.write_part("scores", start, stop, table)}
        if lost is not None:
            parts["failures"] = run.write_part("failures", start, stop, lost)
        reasons = {} if lost is None else _counts(lost)
        run.commit(
            ShardRecord(
                stage="score",
                start=start,
                stop=stop,
                rows_in=stop - start,
                rows_out=table.num_rows,
                rows_failed=rows_failed,
                reasons=reasons,
                parts=parts,
                seconds={"read": 2.0, "score": 0.5},
                cutouts=table.num_rows,
                batches=2,
                bytes_read=1000,
            )
        )
        start = stop
    return run.part_names("scores", run.records("score"))


def failure_table(ids: Sequence[int], reasons: Sequence[str]) -> pa.Table:
    """Failures of stage `score` at one position."""
    n = len(ids)
    values = {
        "object_id": list(ids),
        "ra": [10.0] * n,
        "dec": [0.0] * n,
        "healpix_29": compute_spatial_index([10.0] * n, [0.0] * n),
        "stage": ["score"] * n,
        "reason": list(reasons),
        "detail": [""] * n,
    }
    return pa.table(values, schema=failure_schema(pa.int64()))


def commit_select(
    run: RunDirectory, start: int, selected: int, removed: dict[str, int], failed: int = 0
) -> None:
    """Commit one shard of stage `select`."""
    run.commit(
        ShardRecord(
            stage="select",
            start=start,
            stop=start + 1,
            rows_in=selected + failed + sum(removed.values()),
            rows_out=selected,
            rows_failed=failed,
            removed=removed,
            reasons={"bad_metadata": failed} if failed else {},
            seconds={"query": 1.5},
        )
    )


def _counts(table: pa.Table) -> dict[str, int]:
    counted = table["reason"].value_counts().to_pylist()
    return {entry["values"]: entry["counts"] for entry in counted}
