"""`select_vs_duckdb`: stage `select`, cuts and network, against a bare DuckDB query with the same
cuts and threads; `select_cuts_vs_duckdb`: the same without the network.

Both read the same Parquet file and write the survivors as Parquet. The stage is that of a run, in
Ray's actors, as many as DuckDB has threads; its clock begins when they are ready. It does more for
it: missing values, counts per cut, the photometry network, HEALPix indices, files that are synced
to the disk, commit records. The query writes of each survivor what the stage reads of it: id and
position, and with the network its features. `select_vs_duckdb_positions` is the stage with the
network over a query that leaves the features out. The sample that the network's threshold is chosen
from, once a run, is on neither clock.
"""

from __future__ import annotations

import cProfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from pstats import Stats
from statistics import median
from tempfile import TemporaryDirectory

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from lenspipe import config
from lenspipe.bench.stage import Stopwatch, opened
from lenspipe.healpix import healpix_29
from lenspipe.run_directory import RunDirectory
from lenspipe.runtime import PoolOptions, connect
from lenspipe.select import stage
from lenspipe.select.cuts import CompiledCuts
from lenspipe.select.measured import RESERVED
from lenspipe.select.photometry import PhotometryNetwork
from lenspipe.select.plan import SelectPlan, plan_catalogue
from lenspipe.select.sources import SourcePart, list_parts
from lenspipe.select.threshold import settle_threshold
from lenspipe.stages.selecting import Selector, lay_out, stage_spec
from lenspipe.stages.stage import run_stage

# 1.3% of the random galaxies pass, as 0.8% of Pan-STARRS' sources pass its cuts: what few survivors
# leave to be read decides the ratio.
CUTS = {
    "bright_enough": "i_mag < 21.5",
    "red": "g_mag - i_mag BETWEEN 1.2 AND 3.6",
    "extended": "i_psf_mag - i_kron_mag > 0.5",
}
_GROUP_ROWS = 250_000
_FEATURE_BANDS = ("g", "r", "i")
_STEPS: dict[str, Callable[..., object]] = {
    "whole": Selector.__call__,
    "read_cut_columns": stage._read_cut_columns,
    "cuts": CompiledCuts.apply,
    "read_other_columns": stage._read_the_rest,
    "network": PhotometryNetwork.score,
    "healpix": healpix_29,
    "write_and_sync": RunDirectory.write_part,
}
NETWORK = "ps1-photometry"
_CUTS_ONLY = {
    "select_vs_duckdb": "select_cuts_vs_duckdb",
    "select_rows_per_s": "select_cuts_rows_per_s",
    "hours_for_3e9_rows": "select_cuts_hours_for_3e9_rows",
}
SURVEY_ROWS = 3e9  # Pan-STARRS 3π, the yardstick


def measure(
    rows: int = 4_000_000, rounds: int = 5, threads: int = 2, network: str | None = None
) -> dict[str, float]:
    """Median over alternating rounds of DuckDB's seconds over ours, and the rates behind it.

    network: a photometry network on columns g_mag … i_mag, *_mag_err; without one, cuts only.
    """
    with (
        TemporaryDirectory(prefix="lenspipe-bench-") as folder,
        duckdb.connect(config={"threads": threads}) as connection,
        connect(cpus=threads),
    ):
        file = Path(folder, "catalogue.parquet")
        write_catalogue(file, rows)
        plan, parts = plan_for(file, network)
        ours: list[float] = []
        bare: list[float] = []
        positions: list[float] = []
        for turn in range(rounds + 1):
            run = Path(folder, f"run{turn}")
            seconds = stage_seconds(run, plan, parts, threads)
            queried = [
                query_seconds(connection, file, Path(folder, "bare.parquet"), columns)
                for columns in ((*RESERVED, *plan.network_columns), RESERVED)
            ]
            if turn:  # the first round warms caches
                ours.append(seconds)
                bare.append(queried[0])
                positions.append(queried[1])
    rate = rows / median(ours)
    return {
        "select_vs_duckdb": median(b / o for b, o in zip(bare, ours, strict=True)),
        "select_vs_duckdb_positions": median(p / o for p, o in zip(positions, ours, strict=True)),
        "select_rows_per_s": rate,
        "duckdb_rows_per_s": rows / median(bare),
        "hours_for_3e9_rows": SURVEY_ROWS / rate / 3600,
    }


def measure_both(rows: int, rounds: int, threads: int, network: str = NETWORK) -> dict[str, float]:
    """What `measure` gives with the network and, as `select_cuts_vs_duckdb` and `select_cuts_…`,
    without it. Each has its own projection to the yardstick survey."""
    cuts = measure(rows, rounds, threads)
    return {
        **measure(rows, rounds, threads, network),
        **{_CUTS_ONLY[name]: value for name, value in cuts.items() if name in _CUTS_ONLY},
    }


def profile(rows: int = 2_000_000, network: str | None = None) -> dict[str, float]:
    """Processor time of each step of the stage in one thread, in ms per million rows.

    `whole` holds the others and what lies between them.
    """
    with TemporaryDirectory(prefix="lenspipe-bench-") as folder:
        file = Path(folder, "catalogue.parquet")
        write_catalogue(file, rows)
        plan, parts = plan_for(file, network)
        run_in_process(Path(folder, "warm"), plan, parts)
        profiler = cProfile.Profile(time.process_time, builtins=False)  # a clock read costs 1 µs
        selector = Selector(RunDirectory(str(Path(folder, "run"))), plan)
        for work in lay_out(parts):
            profiler.runcall(selector, work)
    found = {
        (place, line, name): cumulative
        for (place, line, name), (_, _, _, cumulative, _) in Stats(profiler).stats.items()  # type: ignore[attr-defined]  # typeshed lacks it
    }
    return {name: found.get(_key(step), 0.0) * 1e9 / rows for name, step in _STEPS.items()}


def _key(step: Callable[..., object]) -> tuple[str, int, str]:
    code = step.__code__
    return (code.co_filename, code.co_firstlineno, code.co_name)


def write_catalogue(path: Path, rows: int, seed: int = 0) -> None:
    """A catalogue of random galaxies, 2% of each magnitude missing (-999), in row groups."""
    rng = np.random.default_rng(seed)
    first = _galaxies(rng, 0, min(rows, _GROUP_ROWS))
    with pq.ParquetWriter(path, first.schema) as writer:
        writer.write_table(first)
        for start in range(_GROUP_ROWS, rows, _GROUP_ROWS):
            writer.write_table(_galaxies(rng, start, min(rows - start, _GROUP_ROWS)))


def stage_seconds(
    folder: Path, plan: SelectPlan, parts: tuple[SourcePart, ...], workers: int
) -> float:
    """The stage as a run does it, from the first part handed out to the last commit."""
    run, watch = RunDirectory(str(folder)), Stopwatch("select")
    with opened(run, watch.events()) as ledger:
        run_stage(ledger, stage_spec(run, plan, PoolOptions(workers)), lay_out(parts))
        return watch.seconds()


def run_in_process(folder: Path, plan: SelectPlan, parts: tuple[SourcePart, ...]) -> None:
    """The stage's work without Ray: every part is selected, its files written and synced, and its
    record committed."""
    run = RunDirectory(str(folder))
    selector = Selector(run, plan)
    for work in lay_out(parts):
        run.commit(selector(work))


def _galaxies(rng: np.random.Generator, start: int, rows: int) -> pa.Table:
    i_mag = rng.normal(21.0, 1.5, rows)
    columns: dict[str, np.ndarray] = {
        "object_id": np.arange(start, start + rows, dtype=np.int64),
        "ra": rng.uniform(0.0, 360.0, rows),
        "dec": np.degrees(np.arcsin(rng.uniform(-0.5, 1.0, rows))),
        "i_kron_mag": i_mag.astype(np.float32),
        "i_psf_mag": (i_mag + rng.exponential(0.15, rows)).astype(np.float32),
    }
    for band, colour in zip(_FEATURE_BANDS, (1.4, 0.5, 0.0), strict=True):
        mag = i_mag + colour * rng.normal(1.0, 0.6, rows) + rng.normal(0.0, 0.1, rows)
        mag[rng.random(rows) < 0.02] = -999.0
        columns[f"{band}_mag"] = mag.astype(np.float32)
        columns[f"{band}_mag_err"] = rng.uniform(0.01, 0.2, rows).astype(np.float32)
    return pa.table(columns)


def plan_for(file: Path, network: str | None) -> tuple[SelectPlan, tuple[SourcePart, ...]]:
    """The stage's plan and parts for a file, or a folder of files, of `write_catalogue`."""
    sources = config.Sources(path=str(file), missing_values=(-999.0,))
    photometry = (
        config.Photometry(model=network, keep=config.Keep(fraction=0.05)) if network else None
    )
    parts = list_parts(sources, ".")
    plan = plan_catalogue(sources, CUTS, photometry, None, ".")
    return settle_threshold(plan, parts), parts


def query_seconds(
    connection: duckdb.DuckDBPyConnection, file: Path, out: Path, columns: Sequence[str]
) -> float:
    """The query alone. DuckDB keeps no order here: it writes survivors as they come."""
    where = " AND ".join(f"({cut})" for cut in CUTS.values())
    began = time.perf_counter()
    connection.execute(
        f"COPY (SELECT {', '.join(columns)} FROM read_parquet('{file}') WHERE {where}) "  # noqa: S608  # constants
        f"TO '{out}' (FORMAT parquet, COMPRESSION zstd)"
    )
    return time.perf_counter() - began
