from __future__ import annotations

import errno
import io
import itertools
import tempfile
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lenspipe.errors import StoppedError
from lenspipe.run_directory import RunDirectory
from lenspipe.storage import external_sort
from lenspipe.storage.external_sort import (
    Sample,
    Scatter,
    divide,
    piece_of,
    slabs,
    sorted_piece,
    stream,
)
from lenspipe.storage.patience import patiently


def table(rows: int, seed: int = 0, values: int = 5) -> pa.Table:
    rng = np.random.default_rng(seed)
    columns = {name: rng.integers(-2, values, rows) for name in ("a", "b", "c")}
    return pa.table({**columns, "text": [f"é{k}" for k in range(rows)]})


@pytest.mark.parametrize("rows", [7, 100])
def test_a_stream_gives_every_row_in_order_in_tables_of_the_size_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rows: int
) -> None:
    monkeypatch.setattr(external_sort, "CHUNK_ROWS", 32)
    monkeypatch.setattr(external_sort, "_MOST_BATCHES", 3)
    run = RunDirectory(str(tmp_path))
    whole = table(250)
    cuts = [0, 3, 3, 60, 61, 200, 250]
    pieces = [whole[start:stop] for start, stop in itertools.pairwise(cuts)]
    names = [run.write_part("scores", k, k + 1, piece).name for k, piece in enumerate(pieces)]
    found = list(stream(run, names, rows=rows))
    assert pa.concat_tables(found).equals(whole)
    assert all(rows <= piece.num_rows < rows + 32 for piece in found[:-1])
    [narrow] = stream(run, names, ["text"], rows=1000)
    assert narrow.equals(whole.select(["text"]))
    assert list(stream(run, [])) == []


def test_rows_come_back_by_piece_in_the_order_in_which_they_were_added() -> None:
    added = [(table(50, seed), np.random.default_rng(seed).integers(0, 6, 50)) for seed in range(4)]
    with Scatter() as scattered:
        for rows, piece in added:
            scattered.add(rows, piece)
        assert scattered.pieces() == list(range(6))
        for number in reversed(scattered.pieces()):
            expected = [rows.filter(pa.array(piece == number)) for rows, piece in added]
            assert scattered.read(number).equals(pa.concat_tables(expected).combine_chunks())


def test_scratch_has_no_name_that_a_kill_could_leave(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with Scatter() as scattered:
        scattered.add(table(50), np.zeros(50, np.int64))
        assert scattered.read(0).equals(table(50))
        assert list(tmp_path.iterdir()) == []


class _Limited(io.FileIO):
    """A file on a disk that takes so many bytes."""

    left = 4096

    def write(self, data: Any) -> int:
        size = memoryview(data).nbytes
        if size > self.left:
            raise OSError(errno.ENOSPC, "No space left on device")
        self.left -= size
        return super().write(data) or 0


def test_scratch_that_is_full_is_told_with_its_folder_and_what_sets_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lenspipe.storage.patience.sleep", lambda _seconds: None)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    told: list[str] = []

    def limited(**_: Any) -> io.BufferedRandom:
        return io.BufferedRandom(_Limited(tmp_path / "scratch", "w+"))

    monkeypatch.setattr("lenspipe.storage.external_sort.TemporaryFile", limited)

    def sort(rows: int) -> int:
        with Scatter() as scattered:
            scattered.add(table(rows), np.zeros(rows, np.int64))
            return len(scattered.read(0))

    assert sort(20) == 20
    for rows in (10_000, 150):  # met while rows are added; when they are read
        with pytest.raises(StoppedError, match=r"temporary folder \(TMPDIR sets it\)"):
            patiently(partial(sort, rows), near="/", told=told.append)
    for line in told:
        assert "bytes free, " in line
        assert line.endswith(f"on the disk of {tmp_path})")


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 200), st.integers(0, 1000), st.integers(-1, 9))
def test_a_piece_is_sorted_as_the_whole_would_be(rows: int, seed: int, values: int) -> None:
    unsorted = table(rows, seed, values)
    keys = [(name, "ascending") for name in ("a", "b", "c", "text")]
    assert sorted_piece(unsorted, ["a", "b"], ["c", "text"]).equals(unsorted.sort_by(keys))


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(0, 40), max_size=12), st.integers(1, 30))
def test_slabs_are_full_but_for_the_last(sizes: list[int], rows: int) -> None:
    pieces = [table(size, size) for size in sizes if size]
    found = list(slabs(iter(pieces), rows))
    assert all(slab.num_rows == rows for slab in found[:-1])
    assert all(0 < slab.num_rows <= rows for slab in found[-1:])
    if pieces:
        assert pa.concat_tables(found).equals(pa.concat_tables(pieces))


def test_pieces_follow_the_order_of_the_keys_and_are_of_about_one_size(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(external_sort, "_SAMPLE_ROWS", 2000)
    monkeypatch.setattr(external_sort, "PIECE_ROWS", 1000)
    keys = np.random.default_rng(0).integers(0, 1 << 60, 30_000)
    sample = Sample()
    for start in range(0, len(keys), 700):
        sample.add(keys[start : start + 700])
    assert (sample.rows, sample.pieces) == (30_000, 30)
    assert 1000 < sample.keys.shape[1] <= 4700
    bounds = divide(sample.keys[0].astype(np.uint64), sample.pieces)
    pieces = piece_of(np.sort(keys).astype(np.uint64), bounds)
    assert np.all(np.diff(pieces) >= 0)
    assert np.bincount(pieces, minlength=30).max() < 2000
    assert len(divide(np.zeros(10, np.uint64), 4)) == 1  # keys that are all alike
