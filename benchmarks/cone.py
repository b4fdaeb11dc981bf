"""How long a cone search takes on a large catalogue, and what it reads.

Builds a HATS catalogue of random sources over the whole sky in --folder (once; 5 GB for 10⁸ rows)
and searches random cones in it: `python -m benchmarks.cone --rows 100000000`.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
from cdshealpix.nested import healpix_to_lonlat

from lenspipe.catalogue.cone import Cone
from lenspipe.catalogue.hats import ROW_GROUP_ROWS, write_metadata, write_partition
from lenspipe.catalogue.partitions import MAX_ORDER, Partition
from lenspipe.catalogue.published import Published
from lenspipe.contracts import score_schema
from lenspipe.run_directory import RunDirectory

PARTITION_ROWS = 1_000_000
MEMBERS = ("ps1-holismokes", "ps1-resnet", "ps1-group")
RADII_ARCSEC = (2.0, 60.0, 600.0)
SCHEMA = score_schema(pa.int64(), MEMBERS)


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


def search(published: Published, radius_arcsec: float, cones: int, seed: int) -> None:
    """Print the time of random cones in one process, footers cold and warm."""
    rng = np.random.default_rng(seed)
    ra, z = rng.uniform(0, 360, cones), rng.uniform(-1, 1, cones)
    dec = np.degrees(np.arcsin(z))
    seconds, found = [], []
    for place in zip(ra.tolist(), dec.tolist(), strict=True):
        begun = time.perf_counter()
        found.append(published.cone(Cone(*place, radius_arcsec / 3600)).num_rows)
        seconds.append(time.perf_counter() - begun)
    told = np.percentile(seconds, [50, 90, 100]) * 1e3
    print(
        f'{radius_arcsec:g}": median {told[0]:.1f} ms, 90% {told[1]:.1f}, longest {told[2]:.1f}; '
        f"{np.mean(found):.2f} rows a cone, {cones} cones"
    )


def main() -> None:
    """Build what is not there, and search."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=10_000_000)
    parser.add_argument("--folder", type=Path, default=Path("runs/cone"))
    parser.add_argument("--cones", type=int, default=200)
    options = parser.parse_args()
    run = RunDirectory(str(options.folder / f"{options.rows}"))
    if not run.store.exists("catalogue/hats.properties"):
        begun = time.perf_counter()
        build(run, options.rows)
        print(f"built {options.rows:,} rows in {time.perf_counter() - begun:.0f} s")
    begun = time.perf_counter()
    published = Published(run)
    published.cone(Cone(10.0, 10.0, 1 / 3600))
    print(f"opening and the first cone: {1e3 * (time.perf_counter() - begun):.0f} ms")
    for seed, radius in enumerate(RADII_ARCSEC):
        search(published, radius, options.cones, seed)


if __name__ == "__main__":
    main()
