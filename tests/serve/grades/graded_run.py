"""A run with a few candidates whose stamps are numbers that say whose they are."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa

from lenspipe.catalogue.candidates import COLUMNS, Chosen, StampBatch, write_candidates
from lenspipe.contracts import InputSpec, score_schema
from lenspipe.run_directory import RunDirectory

SPEC = InputSpec("image", ("g", "r"), 4, 0.25, 25.0)


def make_run(folder: Path, n: int = 8, text_ids: bool = False) -> RunDirectory:
    """Candidates 0 … n - 1 (or J0 … ), the first with probability 0.9, the last with 0.1 and, alone
    of all, without a stamp. Every pixel of stamp k is k."""
    run = RunDirectory(str(folder))
    kind = pa.string() if text_ids else pa.int64()
    schema = pa.schema([score_schema(kind, ()).field(name) for name in COLUMNS])
    ids = [f"J{k}" for k in range(n)] if text_ids else list(range(n))
    probability = np.linspace(0.9, 0.1, n, dtype=np.float32)
    table = pa.table(
        {
            "object_id": ids,
            "ra": np.linspace(10.0, 11.0, n),
            "dec": np.zeros(n),
            "score": np.log(probability / (1 - probability)),
            "probability": probability,
            "flags": np.zeros(n, np.int32),
        },
        schema=schema,
    )
    pixels = np.broadcast_to(np.arange(n, dtype=np.float32)[:, None, None, None], (n, *SPEC.shape))
    batch = StampBatch(ids[: n - 1], {"image": pixels[: n - 1]})
    write_candidates(run, Chosen(n, table), [SPEC], [batch], {})
    run.write_json("run.json", {"state": "done", "layout": 3})
    return run
