"""A whole survey of toy sources in a folder: catalogue, cutouts, models and survey file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import yaml

from lenspipe.models.card import Feature
from tests.toy_models import make_ensemble, make_photometry

SIZE = 8
BANDS = ("g", "r", "i")


def make_survey(
    folder: Path,
    rows: int = 600,
    *,
    row_group: int = 100,
    string_ids: bool = False,
    seed: int = 0,
    member: dict[str, Any] | None = None,
    **changes: Any,
) -> Path:
    """Write the survey and return its file. changes: replace blocks of the survey file.

    About two thirds of the rows survive the cut, about half of those the network.
    """
    rng = np.random.default_rng(seed)
    folder.mkdir(parents=True, exist_ok=True)
    write_catalogue(folder / "catalogue" / "part.parquet", rows, rng, row_group, string_ids)
    write_cutouts(folder / "cutouts.h5", rows, rng)
    make_ensemble(folder, name="toy", bands=BANDS, size=SIZE, **(member or {}))
    make_photometry(
        folder / "photometry.onnx",
        features=[Feature(kind="colour", a="g_mag", b="i_mag")],
        weights=[1.0],
        bias=-1.0,
    )
    content = {
        "name": "toy",
        "sources": {"path": "catalogue/"},
        "cuts": {"bright_enough": "i_mag < 21.0"},
        "photometry": {"model": "photometry.onnx", "keep": {"score_above": 0.0}},
        "cutouts": {
            "reader": "hdf5",
            "path": "cutouts.h5",
            "dataset": "images",
            "bands": list(BANDS),
            "row": "row",
            "pixel_scale_arcsec": 0.25,
        },
        "ensemble": "toy.yaml",
        "candidates": {"top": 20},
        "runtime": {"shard_rows": 64, "provider": "cpu", "scorers": 1, "failure_limit": 1.0},
        **changes,
    }
    path = folder / "survey.yaml"
    path.write_text(yaml.safe_dump(content, sort_keys=False), encoding="utf-8")
    return path


def write_catalogue(
    path: Path, rows: int, rng: np.random.Generator, row_group: int, string_ids: bool
) -> pa.Table:
    """A catalogue over a few square degrees, `row` being the row of the cutouts."""
    path.parent.mkdir(parents=True, exist_ok=True)
    numbers = np.arange(rows) + 1_000
    i_mag = rng.uniform(18.0, 22.5, rows)
    table = pa.table(
        {
            "object_id": [f"obj {n}" for n in numbers] if string_ids else numbers,
            "ra": rng.uniform(150.0, 153.0, rows),
            "dec": rng.uniform(-1.0, 1.0, rows),
            "i_mag": i_mag,
            "g_mag": i_mag + rng.normal(1.0, 1.0, rows),
            "row": np.arange(rows),
        }
    )
    pq.write_table(table, path, row_group_size=row_group)
    return table


def write_cutouts(path: Path, rows: int, rng: np.random.Generator) -> None:
    """One noise stamp per row of the catalogue."""
    with h5py.File(path, "w") as file:
        images = rng.normal(size=(rows, len(BANDS), SIZE, SIZE)).astype(np.float32)
        file.create_dataset("images", data=images, chunks=(16, len(BANDS), SIZE, SIZE))
