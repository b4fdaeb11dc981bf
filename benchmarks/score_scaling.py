"""Stage `score` over the bare ONNX sessions, by threads, rows of a shard and batch size, and the
gain of a cascade.

    python -m benchmarks.score_scaling
    python -m benchmarks.score_scaling --profile
    python -m benchmarks.score_scaling --cascade

The scorer's own callable runs in this process on a real plan and a local Zarr store: it reads,
scores and writes part files. `cpu_vs_session` is processor time of the sessions alone over that of
the scorer, in alternating rounds: what else the machine does moves it little. `wall_vs_session` is
the same of the clock, without the overlap of reading and scoring that an actor has; `lenspipe
bench` measures the stage with it. Each measurement is told on standard error when it is done.
"""

from __future__ import annotations

import argparse
import cProfile
import json
import os
import pstats
import shutil
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import yaml
import zarr

from lenspipe.bench.job import write_survey
from lenspipe.config import Survey
from lenspipe.job import plan_shards, select
from lenspipe.metrics import RunMetrics
from lenspipe.models.ensemble import Ensemble, describe_ensemble, load_ensemble
from lenspipe.processes.slots import plan_slots
from lenspipe.run.opening import check_and_open
from lenspipe.runtime import connect
from lenspipe.stages.planning import Plan
from lenspipe.stages.scoring import PlanRows, Scorer, ScoreSettings, open_ensemble
from lenspipe.telling.events import Events
from lenspipe.telling.progress import SilentProgress
from training.half import example_stamps

Seconds = tuple[float, float]  # of the processor, of the clock


def seconds(work: Callable[[], object]) -> Seconds:
    """What one call took."""
    began = (time.process_time(), time.perf_counter())
    work()
    return (time.process_time() - began[0], time.perf_counter() - began[1])


def planned(survey: Survey, shard_rows: int) -> tuple[Plan, ScoreSettings]:
    """A run whose plan is written, ready to score."""
    runtime = survey.runtime.model_copy(update={"shard_rows": shard_rows, "scorers": 1})
    ours = survey.model_copy(update={"runtime": runtime})
    with connect() as machine:
        slots = plan_slots(machine, ours.runtime)
        with check_and_open(ours, Events(RunMetrics("scaling"), SilentProgress())) as job:
            select(job, workers=1)
            plan = plan_shards(job, slots)
            return plan, job.checked.score_settings(job.run.url, "cpu", threads=1)


def score_all(scorer: Scorer, plan: Plan) -> int:
    """Rows that the scorer scored over all shards of the plan."""
    return sum(scorer(PlanRows(*shard)).rows_out for shard in plan.shards)


def bare(ensemble: Ensemble, pixels: np.ndarray, batch: int) -> None:
    """The members' sessions alone, on arrays in memory."""
    for start in range(0, len(pixels), batch):
        for member in ensemble.members:
            name = member.image_inputs[0].name
            member.session.run(None, {name: pixels[start : start + batch]})


def measure_one(
    survey: Survey, shard_rows: int, batch: int, threads: int, rounds: int
) -> dict[str, float]:
    """Medians of the ratios over rounds in turn, after one that is not counted."""
    plan, settings = planned(survey, shard_rows)
    settings = _changed(settings, batch, threads)
    scorer, ensemble = Scorer(settings), open_ensemble(settings)
    pixels = np.asarray(zarr.open_group(Path(survey.base, "cutouts.zarr"), mode="r")["images"])
    pairs = []
    for turn in range(rounds + 1):
        found: list[int] = []
        ours = seconds(lambda kept=found: kept.append(score_all(scorer, plan)))  # type: ignore[misc]
        if found != [len(pixels)]:
            raise RuntimeError(f"{found} of {len(pixels)} rows were scored")
        alone = seconds(lambda: bare(ensemble, pixels, batch))
        if turn:
            pairs.append((ours, alone))
    shutil.rmtree(settings.run_url)
    return {
        "threads": threads,
        "shard_rows": shard_rows,
        "batch": batch,
        "cpu_vs_session": median(alone[0] / ours[0] for ours, alone in pairs),
        "wall_vs_session": median(alone[1] / ours[1] for ours, alone in pairs),
        "cpu_ms_per_cutout": 1e3 * median(ours[0] for ours, _ in pairs) / len(pixels),
    }


def _changed(settings: ScoreSettings, batch: int, threads: int) -> ScoreSettings:
    return ScoreSettings(**{**vars(settings), "batch_size": batch, "threads": threads})


def measure(
    ensemble: str,
    cutouts: int,
    rounds: int,
    threads: Sequence[int],
    shard_rows: Sequence[int],
    batches: Sequence[int],
) -> list[dict[str, float]]:
    """One axis at a time about one thread, 2048 rows and batches of 64."""
    wanted = [(2048, 64, 1)]
    wanted += [(2048, 64, count) for count in threads]
    wanted += [(rows, 64, 1) for rows in shard_rows]
    wanted += [(2048, batch, 1) for batch in batches]
    with TemporaryDirectory(prefix="lenspipe-scaling-") as folder, connect():
        survey = write_survey(Path(folder), ensemble, cutouts)
        found = []
        for setting in dict.fromkeys(wanted):
            found.append(measure_one(survey, *setting, rounds))
            print(json.dumps(found[-1]), file=sys.stderr, flush=True)
        return found


def profile(ensemble: str, cutouts: int) -> dict[str, Any]:
    """Processor time of one scorer by function, its own alone: microseconds per cutout."""
    with TemporaryDirectory(prefix="lenspipe-scaling-") as folder:
        survey = write_survey(Path(folder), ensemble, cutouts)
        plan, settings = planned(survey, 2048)
        scorer = Scorer(_changed(settings, 64, 1))
        score_all(scorer, plan)
        profiler = cProfile.Profile(time.process_time)
        profiler.runcall(score_all, scorer, plan)
    stats = pstats.Stats(profiler).get_stats_profile()
    functions = sorted(stats.func_profiles.items(), key=lambda item: -item[1].tottime)[:25]
    return {
        "us_per_cutout": 1e6 * stats.total_tt / cutouts,
        "functions": {
            f"{Path(found.file_name).name}:{name}": round(1e6 * found.tottime / cutouts, 3)
            for name, found in functions
        },
    }


def cascades(ensemble: str, cutouts: int, rounds: int, fractions: Sequence[float]) -> Any:
    """Processor time of the whole ensemble over that of a cascade, by the member that looks first
    and the fraction of rows that it lets through, on drawn stamps."""
    described = describe_ensemble(ensemble)
    images = example_stamps(described.members[0].card, cutouts)
    whole = load_ensemble(ensemble, provider="cpu", batch_size=64)
    logits = whole.score(images, full=True).members
    found = []
    with TemporaryDirectory(prefix="lenspipe-cascade-") as folder:
        for column, first in enumerate(whole.member_names):
            for fraction in fractions:
                below = float(np.quantile(logits[:, column], 1.0 - fraction))
                path = _with_cascade(described.path, Path(folder, "cascade.yaml"), first, below)
                cascade = load_ensemble(str(path), provider="cpu", batch_size=64)
                pairs = [
                    (
                        seconds(lambda: whole.score(images)),
                        seconds(lambda own=cascade: own.score(images)),  # type: ignore[misc]
                    )
                    for _ in range(rounds)
                ]
                found.append(
                    {
                        "first": first,
                        "fraction_passed": fraction,
                        "cpu_gain": median(full[0] / part[0] for full, part in pairs),
                    }
                )
    return found


def _with_cascade(source: Path, path: Path, first: str, below: float) -> Path:
    content = yaml.safe_load(source.read_text(encoding="utf-8"))
    content["members"] = [str(source.parent / member) for member in content["members"]]
    content["cascade"] = {"first": first, "below": below}
    path.write_text(yaml.safe_dump(content), encoding="utf-8")
    return path


def main() -> None:
    """Print the measurement as one JSON value."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--ensemble", default="ps1-gri", help="a name in the zoo or a path")
    parser.add_argument("--cutouts", type=int, default=16_384)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, nargs="*", default=[1, 2])
    parser.add_argument(
        "--shard-rows", type=int, nargs="*", default=[256, 512, 1024, 2048, 4096, 8192, 16384]
    )
    parser.add_argument("--batches", type=int, nargs="*", default=[8, 16, 32, 64, 128, 256])
    parser.add_argument("--fractions", type=float, nargs="*", default=[0.01, 0.1, 0.3])
    parser.add_argument("--profile", action="store_true", help="where the processor's time goes")
    parser.add_argument("--cascade", action="store_true", help="what a cascade saves")
    options = parser.parse_args()
    if options.profile:
        found: Any = profile(options.ensemble, options.cutouts)
    elif options.cascade:
        found = cascades(options.ensemble, options.cutouts, options.rounds, options.fractions)
    else:
        found = measure(
            options.ensemble,
            options.cutouts,
            options.rounds,
            options.threads,
            options.shard_rows,
            options.batches,
        )
    load = os.getloadavg()[0] / len(os.sched_getaffinity(0))
    print(json.dumps({"cutouts": options.cutouts, "load_per_core": load, "found": found}, indent=1))


if __name__ == "__main__":
    main()
