"""A toy survey whose catalogue, pixels and run lie in a bucket, and its twin on the local disk."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pyarrow as pa
import yaml
import zarr
from astropy.io import fits

from lenspipe.run_directory import RunDirectory
from lenspipe.storage.store import Store
from tests.toy_survey import BANDS, make_survey

ROWS = 240
RUNTIME = {"shard_rows": 32, "provider": "cpu", "scorers": 1, "failure_limit": 1.0}


def make_twin(folder: Path, rows: int = ROWS) -> Path:
    """The survey on the local disk, its pixels in Zarr (chunks of four stamps)."""
    survey = make_survey(
        folder, rows, row_group=rows // 4, runtime=RUNTIME, publish={"explain": 2, "mosaic": 4}
    )
    with h5py.File(folder / "cutouts.h5") as file:
        pixels = file["images"][...]
    group = zarr.create_group(folder / "cutouts.zarr", zarr_format=3)
    stored = group.create_array(
        "images", shape=pixels.shape, chunks=(4, *pixels.shape[1:]), dtype=pixels.dtype
    )
    stored[:] = pixels
    change(
        survey, cutouts={"reader": "zarr", "path": "cutouts.zarr", "array": "images", "row": "row"}
    )
    return survey


def write_stamps(folder: Path, rows: int) -> None:
    """The same pixels as one FITS file per source and band."""
    with h5py.File(folder / "cutouts.h5") as file:
        pixels = file["images"][...]
    (folder / "stamps").mkdir()
    for row in range(rows):
        for k, band in enumerate(BANDS):
            fits.writeto(folder / "stamps" / f"{1000 + row}_{band}.fits", pixels[row, k])


def change(survey: Path, **blocks: Any) -> None:
    """Replace blocks of a survey file; of `cutouts` what every reader needs is kept."""
    content = yaml.safe_load(survey.read_text())
    if "cutouts" in blocks:
        kept = {"bands": list(BANDS), "pixel_scale_arcsec": 0.25}
        blocks["cutouts"] = {**kept, **blocks["cutouts"]}
    survey.write_text(yaml.safe_dump({**content, **blocks}, sort_keys=False))


def upload(folder: Path, url: str) -> None:
    """Put a folder's files below a URL."""
    store = Store(url)
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            store.write(path.relative_to(folder).as_posix(), path.read_bytes())


def in_bucket(twin: Path, name: str, **blocks: Any) -> Path:
    """A survey file beside the twin's, with everything but the models at s3://sky."""
    survey = twin.with_name(f"{name}.yaml")
    survey.write_text(twin.read_text())
    cutouts = yaml.safe_load(twin.read_text())["cutouts"]
    cutouts["path"] = "s3://sky/cutouts.zarr"
    change(
        survey,
        **{
            "sources": {"path": "s3://sky/catalogue/"},
            "cutouts": cutouts,
            "output": f"s3://sky/runs/{name}",
            **blocks,
        },
    )
    return survey


def results(url: str) -> dict[str, pa.Table]:
    """Every row that a run left, in the order of ids, without what may differ between runs."""
    run = RunDirectory(url)
    found: dict[str, pa.Table] = {}
    for folder in ("select", "scores", "failures"):
        table = run.read_folder(folder, ["select", "score"])
        if table is not None:
            found[folder] = table.sort_by("object_id").combine_chunks()
    return found


def assert_same(found: str, expected: str) -> None:
    """Row by row, bit by bit: one machine, one network, batches of one size."""
    left, right = results(found), results(expected)
    assert left.keys() == right.keys()
    for folder, table in right.items():
        assert left[folder].equals(table), folder
    assert np.all(np.isfinite(left["scores"]["score"].to_numpy()))
