from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from lenspipe.catalogue.partitions import FIRST_ORDER, MAX_ORDER
from lenspipe.catalogue.places import find_places
from lenspipe.run_directory import RunDirectory
from lenspipe.storage import external_sort


@pytest.mark.parametrize("order", [FIRST_ORDER, 12, MAX_ORDER])
def test_counts_in_passes_are_those_of_the_whole_column(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, order: int
) -> None:
    monkeypatch.setattr(external_sort, "CHUNK_ROWS", 64)
    rng = np.random.default_rng(2)
    near = rng.integers(0, 1 << 30, 300)
    places = np.concatenate([near, near[:50], rng.integers(0, 12 << 58, 200)])
    run = RunDirectory(str(tmp_path))
    parts = [
        run.write_part("scores", k, k + 1, pa.table({"healpix_29": piece})).name
        for k, piece in enumerate(np.array_split(places, 7))
    ]
    found = find_places(run, parts)
    pixels, rows = found.histogram(order, 0, None)
    expected = np.unique(places >> 2 * (MAX_ORDER - order), return_counts=True)
    assert np.array_equal(pixels, expected[0])
    assert np.array_equal(rows, expected[1])
    parents = np.array([0])
    inside = places[places >> 2 * (MAX_ORDER - FIRST_ORDER) == 0]
    pixels, rows = found.histogram(order, FIRST_ORDER + 1, parents)
    expected = np.unique(inside >> 2 * (MAX_ORDER - order), return_counts=True)
    assert np.array_equal(pixels, expected[0])
    assert np.array_equal(rows, expected[1])
