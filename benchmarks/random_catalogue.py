"""A published catalogue of random sources over the whole sky, which benchmarks search in."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pyarrow as pa
from cdshealpix.nested import healpix_to_lonlat

from lenspipe.catalogue.hats import ROW_GROUP_ROWS, write_metadata, write_partition
from lenspipe.catalogue.partitions import MAX_ORDER, Partition
from lenspipe.contracts import score_schema
from lenspipe.run_directory import RunDirectory

PARTITION_ROWS = 1_000_000
MEMBERS = ("ps1-holismokes", "ps1-resnet", "ps1-group")
SCHEMA = score_schema(pa.int64(), MEMBERS)


def random_run(folder: Path, rows: int) -> RunDirectory:
    """The run with a catalogue of `rows` sources below `folder` (50 bytes a row); built where it is
    not there."""
    run = RunDirectory(str(folder / f"{rows}"))
    if not run.store.exists("catalogue/hats.properties"):
        begun, used = time.perf_counter(), time.process_time()
        build(run, rows)
        spent = time.perf_counter() - begun, time.process_time() - used
        print(f"built {rows:,} rows in {spent[0]:.0f} s (CPU {spent[1]:.0f} s)", flush=True)
    return run


def build(run: RunDirectory, rows: int, seed: int = 0) -> None:
    """A catalogue of `rows` sources, evenly over the sky, in partitions of one order."""
    order = 0
    while rows > PARTITION_ROWS * 12 << 2 * order:
        order += 1
    pixels = 12 << 2 * order
    counts = np.full(pixels, rows // pixels)
    counts[: rows % pixels] += 1
    folder = run.store.local_path("catalogue")
    partitions = [Partition(order, k, int(n)) for k, n in enumerate(counts) if n]
    for k, partition in enumerate(partitions):
        table = random_rows(partition, np.random.default_rng((seed, k)))
        pieces = (
            table.slice(at, ROW_GROUP_ROWS) for at in range(0, partition.rows, ROW_GROUP_ROWS)
        )
        write_partition(folder, partition, SCHEMA, pieces)
    write_metadata(folder, partitions, "random", PARTITION_ROWS, f"{rows} {seed}")


def random_rows(partition: Partition, rng: np.random.Generator) -> pa.Table:
    """Rows in one pixel, sorted."""
    n = partition.rows
    healpix = np.sort(rng.integers(partition.first, partition.stop, n))
    longitude, latitude = healpix_to_lonlat(healpix.astype(np.uint64), MAX_ORDER)
    scores = {name: rng.normal(-6, 2, n).astype(np.float32) for name in SCHEMA.names[4:-3]}
    columns = {
        "object_id": rng.integers(0, 2**62, n),
        "ra": longitude.to_value("deg"),
        "dec": latitude.to_value("deg"),
        "healpix_29": healpix,
        **scores,
        "probability": 1 / (1 + np.exp(-scores["score"])),
        "flags": np.zeros(n, np.int32),
        "model_hash": pa.repeat("0123456789abcdef", n),
    }
    return pa.table({name: columns[name] for name in SCHEMA.names}, schema=SCHEMA)
