"""What a run leaves, as values that two runs can be compared by, row by row."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import zarr

from lenspipe.run.verify import verify
from lenspipe.run_directory import RunDirectory


def assert_same(run: Path, undisturbed: Path) -> None:
    """Scores, failures, funnel, catalogue and candidates are equal, and `verify` finds no fault."""
    assert verify(RunDirectory(str(run))) == []
    found, expected = _contents(run), _contents(undisturbed)
    for name, value in expected.items():
        assert found[name] == value, f"{name} of {run} differs from the undisturbed run's"


def _contents(run: Path) -> dict[str, Any]:
    directory = RunDirectory(str(run))
    scores = directory.read_folder("scores", ["score"])
    failures = directory.read_folder("failures", ["select", "score"])
    return {
        "scores": None if scores is None else scores.to_pylist(),
        "failures": None if failures is None else _by_id(failures),
        "funnel": json.loads((run / "funnel.json").read_text(encoding="utf-8")),
        "catalogue": [
            (str(file.relative_to(run)), pq.ParquetFile(file).read().to_pylist())
            for file in sorted((run / "catalogue").rglob("Npix*.parquet"))
        ],
        "candidates": _arrays(run / "candidates.zarr"),
    }


def _by_id(table: pa.Table) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = table.sort_by("object_id").to_pylist()
    return rows


def _arrays(path: Path) -> dict[str, tuple[str, tuple[int, ...], bytes]]:
    """Every array of the group by name: type, shape, bytes."""
    group = zarr.open_group(path, mode="r")
    found = {}
    for name, node in sorted(group.members(max_depth=None)):
        if isinstance(node, zarr.Array):
            values = np.asarray(node[...])
            told = values.tobytes() if values.dtype.kind not in "OT" else repr(values.tolist())
            found[name] = (str(values.dtype), values.shape, told)
    return found  # type: ignore[return-value]  # bytes or text, both compared only
