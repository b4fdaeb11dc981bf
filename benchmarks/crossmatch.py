"""What a cross-match of a large catalogue costs, and whether it finds the right pairs.

Builds a HATS catalogue of random sources over the whole sky in --folder (once; 5 GB for 10⁸ rows)
and another catalogue beside it, half of its rows anywhere, half of them near a source. A process of
its own matches the two and tells its time and its largest memory; then every source is held against
a few of the other's rows, without cells: `python -m benchmarks.crossmatch --rows 100000000`.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from jaxtyping import Float64, Int64

from benchmarks.random_catalogue import random_run
from lenspipe.catalogue.crossmatch import crossmatch
from lenspipe.catalogue.outside import open_outside
from lenspipe.catalogue.published import Published
from lenspipe.run_directory import RunDirectory
from lenspipe.sky import separation_deg

_NEAR_ARCSEC = 3.0  # scatter of those rows that are near a source, in each direction
_SLAB_ROWS = 1 << 16
Positions = tuple[Float64[np.ndarray, " n"], Float64[np.ndarray, " n"]]


def write_other(run: RunDirectory, rows: int, path: Path) -> None:
    """The other catalogue, in no order: `row`, `ra`, `dec` (deg)."""
    rng = np.random.default_rng(1)
    near = _near_sources(run, rows // 2, rng)
    free = rows - len(near[0])
    ra = np.concatenate([near[0], rng.uniform(0, 360, free)])
    dec = np.concatenate([near[1], np.degrees(np.arcsin(rng.uniform(-1, 1, free)))])
    order = rng.permutation(rows)
    table = pa.table({"row": np.arange(rows), "ra": ra[order], "dec": dec[order]})
    pq.write_table(table, path, row_group_size=1 << 17)


def _near_sources(run: RunDirectory, rows: int, rng: np.random.Generator) -> Positions:
    """Positions scattered about sources of the first row group of each partition."""
    files = Published(run).files
    shares = np.bincount(rng.integers(0, len(files), rows), minlength=len(files))
    places: list[Positions] = []
    for name, share in zip(files, shares, strict=True):
        with pq.ParquetFile(run.store.local_path(name)) as file:
            table = file.read_row_group(0, columns=["ra", "dec"])
        picked = rng.integers(0, table.num_rows, share)
        ra, dec = (table[column].to_numpy()[picked] for column in ("ra", "dec"))
        off = rng.normal(0, _NEAR_ARCSEC / 3600, (2, share))
        moved = np.clip(dec + off[0], -90, 90)
        places.append(((ra + off[1] / np.cos(np.radians(dec))) % 360, moved))
    return np.concatenate([p[0] for p in places]), np.concatenate([p[1] for p in places])


def match(run: RunDirectory, other: Path, radius_arcsec: float, out: Path) -> None:
    """Match in this process; print what it cost as one JSON object."""
    begun = time.perf_counter()
    found = crossmatch(Published(run), open_outside(str(other)), radius_arcsec)
    told = {
        "wall_s": time.perf_counter() - begun,
        "cpu_s": time.process_time(),
        "peak_rss_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        "matches": found.num_rows,
    }
    pq.write_table(found.select(["object_id", "row", "separation_arcsec"]), out)
    print(json.dumps(told))


def plain_matches(
    run: RunDirectory, sample: pa.Table, radius_arcsec: float
) -> tuple[Int64[np.ndarray, " n"], Float64[np.ndarray, " n"]]:
    """For each row of a sample the nearest of all sources and its separation (arcsec); -1 and
    infinity where none is within the radius. Every source is looked at."""
    ra, dec = (sample[name].to_numpy() for name in ("ra", "dec"))
    nearest, far = np.full(len(ra), -1), np.full(len(ra), np.inf)
    for name in Published(run).files:
        with pq.ParquetFile(run.store.local_path(name)) as file:
            for batch in file.iter_batches(_SLAB_ROWS, columns=["object_id", "ra", "dec"]):
                ids, ras, decs = (batch[k].to_numpy() for k in range(3))
                for k in range(len(ra)):
                    some = np.flatnonzero(np.abs(decs - dec[k]) <= radius_arcsec / 3600)
                    if not len(some):
                        continue
                    apart = 3600 * separation_deg(ra[k], dec[k], ras[some], decs[some])
                    best = int(np.argmin(apart))
                    if apart[best] <= radius_arcsec and apart[best] < far[k]:
                        nearest[k], far[k] = ids[some[best]], apart[best]
    return nearest, far


def same(run: RunDirectory, found: pa.Table, sample: pa.Table, radius_arcsec: float) -> int:
    """Compare both ways; AssertionError where they differ. Returns how many rows have a match."""
    nearest, far = plain_matches(run, sample, radius_arcsec)
    rows = sample["row"].to_numpy()
    known = dict(zip(found["row"].to_pylist(), range(found.num_rows), strict=True))
    for row, object_id, separation in zip(rows, nearest, far, strict=True):
        if object_id < 0:
            assert row not in known, f"row {row} has no source within the radius"
            continue
        at = known[row]
        assert found["object_id"][at].as_py() == object_id, f"row {row}: another source"
        assert abs(found["separation_arcsec"][at].as_py() - separation) < 1e-6
    return int(np.count_nonzero(nearest >= 0))


def main() -> None:
    """Build what is not there, match, compare."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=10_000_000)
    parser.add_argument("--other-rows", type=int, default=1_000_000)
    parser.add_argument("--radius", type=float, default=2.0, help="arcsec")
    parser.add_argument("--sample", type=int, default=24, help="rows compared with all sources")
    parser.add_argument("--folder", type=Path, default=Path("runs/cone"))
    parser.add_argument("--match-alone", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    run = random_run(options.folder, options.rows)
    beside = Path(run.url)
    other, out = beside / f"other-{options.other_rows}.parquet", beside / "matches.parquet"
    if options.match_alone:
        match(run, other, options.radius, out)
        return
    if not other.exists():
        write_other(run, options.other_rows, other)
    ours = ("--match-alone", "--folder", str(options.folder), "--rows", str(options.rows))
    theirs = ("--other-rows", str(options.other_rows), "--radius", str(options.radius))
    command = [sys.executable, "-m", "benchmarks.crossmatch", *ours, *theirs]
    told = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    print(
        f"{options.other_rows:,} x {options.rows:,}: {told['matches']:,} matches in "
        f"{told['wall_s']:.0f} s (CPU {told['cpu_s']:.0f} s, start included), "
        f"largest memory {told['peak_rss_mb']:,.0f} MB",
        flush=True,
    )
    found = pq.read_table(out)
    rng = np.random.default_rng(2)
    half = options.sample // 2
    with_match = rng.choice(found["row"].to_numpy(), min(half, found.num_rows), replace=False)
    any_row = rng.choice(options.other_rows, options.sample - half, replace=False)
    sample = pq.read_table(other).take(pa.array(np.union1d(with_match, any_row)))
    matched = same(run, found, sample, options.radius)
    print(f"{sample.num_rows} rows against all sources: the same, {matched} with a match")


if __name__ == "__main__":
    main()
