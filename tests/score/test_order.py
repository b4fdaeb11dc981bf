"""Chunks of `lenspipe score`: their size, their order, and results in the catalogue's order."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lenspipe.cutouts import stacks
from lenspipe.cutouts.stacks import StackReader
from lenspipe.models.providers import default_batch_size
from lenspipe.score import score_cutouts as module
from lenspipe.score.order import chunk_rows
from lenspipe.score.score_cutouts import score_cutouts
from tests import toy_models

SIZE = 8
CHUNK = 16  # objects of one packed chunk of the file
ROWS = 5 * CHUNK


def test_only_stamps_on_cpus_are_read_in_small_chunks() -> None:
    assert chunk_rows("stamps", "cpu", 64) == 256
    for reader in ("coadd", "hdf5", "zarr"):
        assert chunk_rows(reader, "cpu", 64) == 2048


def test_a_chunk_fills_several_batches_of_a_device() -> None:
    for provider in ("cuda", "tensorrt"):
        batch = default_batch_size(provider)
        for reader in ("stamps", "coadd", "hdf5"):
            assert chunk_rows(reader, provider, batch) >= 4 * batch
    assert chunk_rows("stamps", "cuda", 1024) == 4096


@pytest.fixture
def pixels() -> np.ndarray:
    drawn = np.random.default_rng(5).normal(size=(ROWS, 3, SIZE, SIZE))
    return drawn.astype(np.float32)


def test_a_catalogue_in_no_order_is_read_by_locality_and_answered_in_its_own(
    tmp_path: Path, pixels: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a repeated id whose first row lies later in the file, and rows that fail."""
    ensemble = toy_models.make_ensemble(tmp_path / "models", bands=("g", "r", "i"), size=SIZE)
    broken = pixels.copy()
    broken[[3, 50]] = np.nan
    with h5py.File(tmp_path / "c.h5", "w") as file:
        shape = (CHUNK, 3, SIZE, SIZE)
        data = file.create_dataset("images", data=broken, chunks=shape, compression="gzip")
        data.attrs.update({"bands": "gri", "pixel_scale_arcsec": 0.25})
    row = np.random.default_rng(7).permutation(ROWS)
    row[[10, 11]] = sorted(row[[10, 11]])[::-1]
    ids = 1000 + np.arange(ROWS)
    ids[11] = ids[10]
    # A column of the catalogue that has the name of the reader's own.
    table = pa.table({"object_id": ids, "row": row, "locality": row[::-1]})
    pq.write_table(table, tmp_path / "c.parquet")
    monkeypatch.setattr(module, "chunk_rows", lambda *_: CHUNK)
    monkeypatch.setattr(stacks, "_locality_rows", lambda _: CHUNK)
    chunks = []
    real = StackReader.read

    def read(self: StackReader, sources: pa.Table, inputs: object) -> object:
        chunks.append({int(r) // CHUNK for r in sources["row"].to_pylist()})
        return real(self, sources, inputs)  # type: ignore[arg-type]  # passed on as it came

    monkeypatch.setattr(StackReader, "read", read)
    out = tmp_path / "s.parquet"
    summary = score_cutouts(
        str(ensemble),
        tmp_path / "c.h5",
        out,
        catalogue=tmp_path / "c.parquet",
        options={"row": "row"},
        provider="cpu",
        batch_size=4,
    )
    assert chunks == [{k} for k in range(ROWS // CHUNK)]
    failing = [k for k in range(ROWS) if row[k] in (3, 50) or k == 11]
    scored = np.setdiff1d(np.arange(ROWS), failing)
    found = pq.read_table(out)
    assert found["object_id"].to_pylist() == ids[scored].tolist()
    weights = [toy_models.make_weights((3, SIZE, SIZE), seed) for seed in (0, 1)]
    wanted = np.mean([toy_models.expected_logits(pixels[row[scored]], w) for w in weights], axis=0)
    np.testing.assert_allclose(found["score"].to_numpy(), wanted, rtol=1e-5, atol=1e-5)
    failures = pq.read_table(tmp_path / "s.failures.parquet")
    assert failures["object_id"].to_pylist() == ids[failing].tolist()
    reasons = dict(zip(failing, failures["reason"].to_pylist(), strict=True))
    assert reasons[11] == "duplicate_id"
    assert (summary.rows, summary.scored) == (ROWS, len(scored))
