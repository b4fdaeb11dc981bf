"""`job_vs_session`: stage `score` of a real run against the bare ONNX sessions on the same pixels.

The stage does all that it does in a survey: Ray actors read the plan and a local Zarr store (or
coadd tiles, FITS stamps, an HDF5 file: `job_vs_session_coadd` and so on), check every stamp, run
the ensemble, and their part files are committed. The bare figure is the members' sessions alone on
the same arrays in memory, in as many threads as there are scorers. Neither clock counts starting
processes and opening models, which a survey does once.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import yaml
import zarr

from lenspipe.bench.readers import BANDS, FORMATS, SCALE_ARCSEC, Stored
from lenspipe.bench.stage import Stopwatch
from lenspipe.config import Survey, parse_survey
from lenspipe.contracts import InputSpec, ProviderName
from lenspipe.job import plan_shards, score, select
from lenspipe.models.ensemble_file import describe_ensemble
from lenspipe.models.providers import ProviderOptions, open_session
from lenspipe.processes.slots import Slots, plan_slots
from lenspipe.run.opening import check_and_open
from lenspipe.runtime import connect

OTHERS = ("coadd", "stamps", "hdf5")
_CHUNK_ROWS = 64
_BATCH = 64


def measure(
    ensemble: str = "ps1-gri",
    cutouts: int = 8192,
    rounds: int = 3,
    others: Collection[str] = OTHERS,
    provider: ProviderName = "cpu",
) -> dict[str, float]:
    """Median over rounds of the stage's rate over the bare sessions', and the rates (cutouts/s).

    others: formats beside Zarr, with half as many cutouts; none where the ensemble takes another
    form of stamp than they are written in.
    """
    with TemporaryDirectory(prefix="lenspipe-bench-") as folder:
        ensemble = asking_every_member(ensemble, Path(folder))
        survey = write_survey(Path(folder), ensemble, cutouts, provider)
        pixels = np.asarray(zarr.open_group(Path(folder, "cutouts.zarr"), mode="r")["images"])
        surveys = {"": (survey, cutouts)}
        spec = describe_ensemble(ensemble).inputs[0]
        if (spec.bands, spec.pixel_scale_arcsec) == (BANDS, SCALE_ARCSEC):
            for name in others:
                stored = FORMATS[name](Path(folder, name), pixels[: len(pixels) // 2])
                surveys[f"_{name}"] = (_survey_of(stored, survey), stored.table.num_rows)
        stage: dict[str, list[float]] = {name: [] for name in surveys}
        bare: list[float] = []
        with connect() as machine:
            slots = plan_slots(machine, survey.runtime)
            for turn in range(rounds + 1):
                rates = {
                    name: rows / stage_seconds(_output(each, f"run{name}-{turn}"), slots)
                    for name, (each, rows) in surveys.items()
                }
                session = _bare_rate(ensemble, pixels, slots)
                if turn:  # the first round warms the page cache
                    bare.append(session)
                    for name, rate in rates.items():
                        stage[name].append(rate)
    found = {"session_cutouts_per_s": median(bare)}
    for name, rates_of in stage.items():
        ratios = (ours / session for ours, session in zip(rates_of, bare, strict=True))
        found[f"job_vs_session{name}"] = median(ratios)
        found[f"score{name}_cutouts_per_s"] = median(rates_of)
    return found


def asking_every_member(ensemble: str, folder: Path) -> str:
    """The ensemble without its cascade, as a file in `folder` where it has one: the bare sessions
    look at every row too, and what a cascade spares is no speed of the job's."""
    described = describe_ensemble(ensemble)
    if described.spec.cascade is None:
        return ensemble
    content = described.spec.model_dump(mode="json", exclude={"cascade"}, exclude_none=True)
    content["members"] = [str(member.path.absolute()) for member in described.members]
    content["on_cpu"] = {
        member.name: str(member.on_cpu.path.absolute())
        for member in described.members
        if member.on_cpu is not None
    }
    path = folder / "every-member.yaml"
    path.write_text(yaml.safe_dump(content), encoding="utf-8")
    return str(path)


def _output(survey: Survey, name: str) -> Survey:
    return survey.model_copy(update={"output": name})


def _survey_of(stored: Stored, like: Survey) -> Survey:
    """The same survey over cutouts in another format."""
    pq.write_table(stored.table, stored.folder / "catalogue.parquet")
    content = like.model_dump(mode="json", exclude={"cutouts", "base"}, exclude_unset=True)
    return parse_survey({**content, "cutouts": stored.all_options()}, base=str(stored.folder))


def write_survey(
    folder: Path, ensemble: str, cutouts: int, provider: ProviderName = "cpu"
) -> Survey:
    """A survey of random stamps in the form that the ensemble takes, all of them selected."""
    spec = describe_ensemble(ensemble).inputs[0]
    _write_catalogue(folder / "catalogue.parquet", cutouts)
    _write_cutouts(folder / "cutouts.zarr", spec, cutouts)
    content = {
        "name": "bench",
        "sources": {"path": "catalogue.parquet"},
        "cutouts": {
            "reader": "zarr",
            "path": "cutouts.zarr",
            "array": "images",
            "bands": list(spec.bands),
            "row": "row",
            "pixel_scale_arcsec": spec.pixel_scale_arcsec,
            "zero_point": {"constant": spec.zero_point_mag or 25.0},
        },
        "ensemble": ensemble,
        "candidates": {"top": 100},
        "runtime": {"provider": provider, "batch_size": _BATCH},
    }
    return parse_survey(content, base=str(folder))


def _write_catalogue(path: Path, rows: int) -> None:
    rng = np.random.default_rng(0)
    columns = {
        "object_id": np.arange(rows),
        "ra": rng.uniform(150.0, 151.0, rows),
        "dec": rng.uniform(0.0, 1.0, rows),
        "row": np.arange(rows),
    }
    pq.write_table(pa.table(columns), path)


def _write_cutouts(path: Path, spec: InputSpec, rows: int) -> None:
    rng = np.random.default_rng(1)
    array = zarr.create_group(path).create_array(
        "images", shape=(rows, *spec.shape), chunks=(_CHUNK_ROWS, *spec.shape), dtype="float32"
    )
    for start in range(0, rows, _CHUNK_ROWS):
        stop = min(start + _CHUNK_ROWS, rows)
        array[start:stop] = rng.normal(0.0, 0.1, (stop - start, *spec.shape)).astype(np.float32)


def stage_seconds(survey: Survey, slots: Slots) -> float:
    """Stage `score` of a run of its own, from the first shard handed out to the last committed."""
    watch = Stopwatch("score")
    with check_and_open(survey, watch.events()) as job:
        select(job, workers=1)
        plan = plan_shards(job, slots)
        score(job, plan, slots)
        return watch.seconds()


def _bare_rate(ensemble: str, pixels: np.ndarray, slots: Slots) -> float:
    """Cutouts per second of the sessions alone."""
    paths = [member.on(slots.provider).path for member in describe_ensemble(ensemble).members]
    share = np.array_split(pixels, slots.scorers)
    workers = [_bare_worker(paths, part, slots) for part in share]
    began = time.perf_counter()
    with ThreadPoolExecutor(len(workers)) as pool:
        rows = sum(done.result() for done in [pool.submit(worker) for worker in workers])
    return rows / (time.perf_counter() - began)


def _bare_worker(paths: Sequence[Path], pixels: np.ndarray, slots: Slots) -> Callable[[], int]:
    """Runs the sessions and says on how many rows: the last batch is as long as the others, and
    begins earlier where rows run out."""
    rows = min(_BATCH, len(pixels))
    options = ProviderOptions(batch_rows=rows)
    sessions = [
        open_session(path.read_bytes(), slots.provider, slots.threads, 0, options, path.name)
        for path in paths
    ]
    names = [session.get_inputs()[0].name for session in sessions]

    def run() -> int:
        starts = range(0, len(pixels), rows)
        for start in starts:
            first = min(start, len(pixels) - rows)
            batch = pixels[first : first + rows]
            for session, name in zip(sessions, names, strict=True):
                session.run(None, {name: batch})
        return len(starts) * rows

    return run
