"""Workers import and open before their first item what that item would have waited for."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from pathlib import Path

import h5py
import numpy as np
import pyarrow as pa
import pytest

from lenspipe.bench.select import write_catalogue
from lenspipe.contracts import InputSpec
from lenspipe.cutouts.base import ReaderOptions, ZeroPoint
from lenspipe.cutouts.formats import hdf5
from lenspipe.processes.rehearsal import rehearse
from lenspipe.stages import scoring
from lenspipe.stages.scoring import PixelReading, ScoreSettings

# Prints the packages that the first part brings into a process whose worker was built before.
FIRST_PART = """
import json, sys
from pathlib import Path
from lenspipe.bench.select import plan_for
from lenspipe.stages.selecting import SelectorFactory, lay_out
plan, parts = plan_for(Path(sys.argv[1]), None)
select = SelectorFactory(sys.argv[2], plan)()
before = set(sys.modules)
record = select(lay_out(parts)[0])
assert record.rows_out > 0
print(json.dumps(sorted({name.partition(".")[0] for name in set(sys.modules) - before})))
"""


def test_the_first_part_imports_nothing_that_takes_its_time(tmp_path: Path) -> None:
    file = tmp_path / "catalogue.parquet"
    write_catalogue(file, 20_000)
    command = [sys.executable, "-c", FIRST_PART, str(file), str(tmp_path / "run")]
    found = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120)
    assert not {"pandas", "astropy", "cdshealpix", "duckdb"} & set(json.loads(found.stdout))


def _reading(path: Path) -> PixelReading:
    options = hdf5.Options(
        reader="hdf5",
        path=str(path),
        bands=("g",),
        row="row",
        pixel_scale_arcsec=0.25,
        zero_point=ZeroPoint(constant=25.0),
    )
    spec = InputSpec("image", ("g",), 8, 0.25)
    return PixelReading(ScoreSettings("run", options, "", ".", inputs=(spec,)))


def _key(reading: PixelReading) -> tuple[str, str]:
    options: ReaderOptions = reading.settings.cutouts
    return (options.model_dump_json(), reading.settings.base)


def test_the_reader_is_open_before_the_first_shard(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scoring, "read_rows", lambda *_: _no_rows())
    path = tmp_path / "a.h5"
    with h5py.File(path, "w") as file:
        file["images"] = np.zeros((3, 1, 8, 8), np.float32)
    reading = _reading(path)
    reading.read_nothing()
    assert _key(reading) in scoring._OPENED


def test_pixels_that_are_away_stop_no_worker_from_starting(tmp_path: Path) -> None:
    """The shard that meets them tells it, and is tried again."""
    reading = _reading(tmp_path / "none" / "a.h5")
    with pytest.raises(FileNotFoundError):
        reading.read_nothing()
    rehearse(reading.read_nothing)
    assert _key(reading) not in scoring._OPENED


def test_what_hangs_stops_no_worker_from_starting() -> None:
    never = threading.Event()
    began = time.monotonic()
    rehearse(never.wait, limit_s=0.2)
    assert 0.2 <= time.monotonic() - began < 5.0
    never.set()


def _no_rows() -> pa.Table:
    return pa.table({"object_id": pa.array([], pa.int64()), "row": pa.array([], pa.int64())})
