"""`lenspipe score` with catalogue, pixels and results on S3."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import zarr

from lenspipe.score.score_cutouts import score_cutouts
from lenspipe.storage.store import Store
from tests import toy_models
from tests.chaos.s3_server import Server, serving
from tests.chaos.s3_survey import upload

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(300)]
ROWS, SIZE = 5, 8


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    folder = tmp_path / "server"
    folder.mkdir()
    with serving(folder) as server, pytest.MonkeyPatch.context() as patch:
        for name, value in server.environment().items():
            patch.setenv(name, value)
        yield server


@pytest.mark.usefixtures("server")
def test_results_are_those_of_the_local_disk_and_lie_in_the_bucket(tmp_path: Path) -> None:
    ensemble = str(toy_models.make_ensemble(tmp_path / "models", bands=("g", "r", "i"), size=SIZE))
    local = tmp_path / "local"
    images = zarr.create_group(str(local / "a.zarr")).create_array(
        "images", data=np.random.default_rng(3).normal(size=(ROWS, 3, SIZE, SIZE)).astype("f4")
    )
    images.attrs.update({"bands": list("gri"), "pixel_scale_arcsec": 0.25})
    (local / "c.csv").write_text("object_id\n" + "".join(f"1.{k}0\n" for k in range(ROWS)))
    block = "cutouts: {reader: zarr, path: PATH/a.zarr, array: images, row: catalogue_row, "
    layout = tmp_path / "layout.yaml"
    layout.write_text(f"catalogue: PATH/c.csv\n{block}bands: [g, r, i]}}\n".replace("PATH", "."))
    score_cutouts(ensemble, local, local / "s.parquet", layout=layout, provider="cpu")
    upload(local / "a.zarr", "s3://sky/a.zarr")
    Store("s3://sky").write("c.csv", (local / "c.csv").read_bytes())
    layout.write_text(layout.read_text().replace("./", "s3://sky/"))
    empty = tmp_path / "empty"
    empty.mkdir()
    command = [sys.executable, "-m", "lenspipe", "score", ensemble, str(layout)]
    for number, given in enumerate(([], ["--catalogue", "s3://sky/c.csv"])):
        done = subprocess.run(
            [*command, "--out", f"s3://sky/out{number}/s.parquet", "--provider", "cpu", *given],
            capture_output=True,
            text=True,
            check=False,
            timeout=200,
            cwd=empty,
            env=dict(os.environ),
        )
        assert (done.returncode, done.stderr) == (0, "")
        assert f"s3://sky/out{number}/s.parquet" in done.stdout
        assert list(empty.iterdir()) == []
        store = Store(f"s3://sky/out{number}")
        assert store.names() == ["s.failures.parquet", "s.parquet", "s.report.html"]
        with store.open("s.parquet") as file:
            found = pq.read_table(file)
        assert found.num_rows == ROWS
        assert found.equals(pq.read_table(local / "s.parquet"))
