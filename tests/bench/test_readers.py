from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from lenspipe.bench import readers, sparse
from lenspipe.contracts import InputSpec


@pytest.mark.parametrize("name", sorted(readers.FORMATS))
def test_every_format_holds_every_pixel_once(name: str, tmp_path: Path) -> None:
    stamps = readers.noise(18, 8)  # two tiles of three by three
    stored = readers.FORMATS[name](tmp_path / name, stamps)
    batch = stored.open().read(
        stored.table, [InputSpec("image", readers.BANDS, 8, readers.SCALE_ARCSEC)]
    )
    assert len(batch) == len(stamps)
    # Tiles are quantised where they are packed, by a fraction of the noise.
    tolerance = 0.05 if name == "coadd_fz" else 0.0
    np.testing.assert_allclose(batch.images["image"], stamps, atol=tolerance, rtol=0)
    if stored.decompress is not None:
        stored.decompress()


def test_a_measurement_has_a_ratio_and_a_rate_per_format() -> None:
    found = readers.measure(18, 8, 1, ["hdf5", "zarr"])
    assert set(found) == {
        "reader_vs_raw_hdf5",
        "reader_hdf5_mpixels_per_s",
        "reader_vs_raw_zarr",
        "reader_vs_decompression_zarr",
        "reader_zarr_mpixels_per_s",
    }
    assert all(value > 0 for value in found.values())


def test_the_plan_reads_no_more_than_whole_chunks_in_no_more_requests_than_objects() -> None:
    found = sparse.measure(objects=2048, rounds=1, latency_s=0.0, side=8)
    for store in ("sharded", "plain"):
        for place in ("local", "remote"):
            for density in sparse.DENSITIES:
                plan, whole, one = (
                    found[f"{store}_{place}_1_in_{density}_{choice}"]
                    for choice in ("plan", "whole_chunk", "one_object")
                )
                assert plan["bytes"] <= whole["bytes"]
                assert plan["requests"] <= one["requests"]
