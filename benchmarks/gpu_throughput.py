"""Cutouts per second from a local Zarr store to committed scores, over the bare ONNX sessions, on
whatever GPU is there: CUDA and TensorRT, float32 and float16 members, several actors a GPU.

    python -m benchmarks.gpu_throughput
    python -m benchmarks.gpu_throughput --provider cpu --small

`job` is stage `score` of a real run, as in `lenspipe.bench.job`. `bare` is the members' sessions
alone on the same arrays in memory, as many threads as there are actors, at the same batch size.
Random pixels suffice: a network's speed does not depend on them. One JSON object is printed at the
end, and each measurement on standard error when it is done; `--limit-s` ends the list in time.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import shutil
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import onnxruntime
import pyarrow.parquet as pq
import yaml
import zarr

from lenspipe.bench.job import asking_every_member, stage_seconds, write_survey
from lenspipe.config import Survey
from lenspipe.contracts import ProviderName
from lenspipe.errors import ProviderError
from lenspipe.models import cuda
from lenspipe.models.card import read_card
from lenspipe.models.encode import encode, image_inputs
from lenspipe.models.ensemble import describe_ensemble, load_ensemble
from lenspipe.models.providers import (
    RUNTIME_NAMES,
    ProviderOptions,
    cuda_devices,
    default_batch_size,
    open_session,
)
from lenspipe.processes.slots import Machine, plan_slots
from lenspipe.runtime import connect
from training.half import example_stamps, make_half

PRECISIONS = ("fp32", "fp16")


@dataclass(frozen=True)
class Setting:
    """One measurement's place in the list."""

    provider: ProviderName
    precision: str
    actors: int


def why_not(provider: ProviderName) -> str:
    """Why a provider cannot be measured here; empty where it can."""
    if RUNTIME_NAMES[provider] not in onnxruntime.get_available_providers():
        return f"onnxruntime {onnxruntime.__version__} was built without it"
    return "" if provider == "cpu" or cuda_devices() else "no CUDA device"


def half_ensemble(name: str, folder: Path) -> Path:
    """The ensemble's file beside members that were brought to half precision."""
    described = describe_ensemble(name)
    folder.mkdir(parents=True)
    for member in described.members:
        make_half(member.path, folder / f"{member.name}.onnx", example_stamps(member.card, 16))
    content = yaml.safe_load(described.path.read_text(encoding="utf-8"))
    content["members"] = [f"{member.name}.onnx" for member in described.members]
    path = folder / "half.yaml"
    path.write_text(yaml.safe_dump(content), encoding="utf-8")
    return path


def with_setting(survey: Survey, ensemble: str, setting: Setting, shard_rows: int) -> Survey:
    """The survey with the setting's models and share of the machine."""
    cores = len(os.sched_getaffinity(0))
    runtime = survey.runtime.model_copy(
        update={
            "provider": setting.provider,
            "batch_size": default_batch_size(setting.provider),
            "scorers": setting.actors,
            "cpus_per_scorer": max(1, cores // setting.actors),
            "gpus_per_scorer": 1.0 / setting.actors,
            "shard_rows": shard_rows,
            "read_ahead": 4,
        }
    )
    return survey.model_copy(update={"ensemble": ensemble, "runtime": runtime})


def bare_seconds(ensemble: str, pixels: np.ndarray, setting: Setting, threads: int) -> float:
    """The sessions alone, each actor's share of the rows in its own thread."""
    parts = np.array_split(pixels, setting.actors)
    works = [_BareWorker(ensemble, part, setting.provider, threads) for part in parts]
    began = time.perf_counter()
    with ThreadPoolExecutor(len(works)) as pool:
        for done in [pool.submit(work.run) for work in works]:
            done.result()
    return time.perf_counter() - began


class _BareWorker:
    """Every member's session, and the rows as the member takes them."""

    def __init__(
        self, ensemble: str, pixels: np.ndarray, provider: ProviderName, threads: int
    ) -> None:
        self._rows = default_batch_size(provider)
        self._work: list[tuple[onnxruntime.InferenceSession, str, np.ndarray]] = []
        for member in describe_ensemble(ensemble).members:
            content = member.path.read_bytes()
            session = open_session(content, provider, threads, 0, ProviderOptions(), member.name)
            (image,) = image_inputs(read_card(member.path)).values()
            taken = pixels
            if image.dtype != "float32":
                taken = np.empty(pixels.shape, image.dtype)
                encode(pixels, image, taken)
            self._work.append((session, image.name, taken))
            session.run(None, {image.name: taken[: self._rows]})  # the first batch builds kernels

    def run(self) -> None:
        for start in range(0, len(self._work[0][2]), self._rows):
            for session, name, taken in self._work:
                session.run(None, {name: taken[start : start + self._rows]})


def require_scored(output: Path, rows: int) -> None:
    """RuntimeError where the run did not score every row: its time would mean nothing."""
    scored = sum(pq.read_metadata(path).num_rows for path in output.glob("scores/*.parquet"))
    if scored != rows:
        raise RuntimeError(f"{output}: {scored} of {rows} rows were scored")


def measure_setting(
    survey: Survey, ensemble: str, setting: Setting, shard_rows: int, rounds: int, machine: Machine
) -> dict[str, Any]:
    """Medians over rounds in turn, after one round that is not counted."""
    ours = with_setting(survey, ensemble, setting, shard_rows)
    slots = plan_slots(machine, ours.runtime)
    pixels = np.asarray(zarr.open_group(Path(survey.base, "cutouts.zarr"), mode="r")["images"])
    job, bare = [], []
    for turn in range(rounds + 1):
        output = Path(survey.base, f"run-{turn}")
        seconds = (
            stage_seconds(ours.model_copy(update={"output": str(output)}), slots),
            bare_seconds(ensemble, pixels, setting, slots.threads),
        )
        require_scored(output, len(pixels))
        shutil.rmtree(output)
        if turn:
            job.append(seconds[0])
            bare.append(seconds[1])
    return {
        **asdict(setting),
        "job_cutouts_per_s": len(pixels) / median(job),
        "bare_cutouts_per_s": len(pixels) / median(bare),
        "job_vs_session": median(b / j for b, j in zip(bare, job, strict=True)),
    }


def largest_differences(ensembles: dict[str, str], provider: ProviderName) -> dict[str, float]:
    """Largest difference of the ensemble's scores from those in float32 on the CPU."""
    stamps = example_stamps(describe_ensemble(ensembles["fp32"]).members[0].card, 256)
    wanted = load_ensemble(ensembles["fp32"], provider="cpu").score(stamps).score
    return {
        precision: float(
            np.abs(load_ensemble(path, provider=provider).score(stamps).score - wanted).max()
        )
        for precision, path in ensembles.items()
    }


def measure(
    settings: Sequence[Setting],
    ensemble: str,
    cutouts: int,
    rounds: int,
    shard_rows: int,
    limit_s: float,
) -> dict[str, Any]:
    """All settings until the limit; what was not measured is named with its reason."""
    ends = time.monotonic() + limit_s
    device = cuda.device(0)
    found: dict[str, Any] = {
        "ensemble": ensemble,
        "cutouts": cutouts,
        "rounds": rounds,
        "onnxruntime": onnxruntime.__version__,
        "cores": len(os.sched_getaffinity(0)),
        "device": None if device is None else asdict(device),
        "measured": [],
        "left_out": [],
        "score_minus_cpu_fp32": {},
    }
    with TemporaryDirectory(prefix="lenspipe-gpu-") as folder, connect() as machine:
        ensemble = asking_every_member(ensemble, Path(folder))
        survey = write_survey(Path(folder), ensemble, cutouts)
        ensembles = {"fp32": ensemble}
        if any(setting.precision == "fp16" for setting in settings):
            ensembles["fp16"] = str(half_ensemble(ensemble, Path(folder, "half")))
        for setting in settings:
            reason = why_not(setting.provider)
            if not reason and time.monotonic() > ends:
                reason = f"the limit of {limit_s:g} s was reached"
            if not reason:
                try:
                    row = measure_setting(
                        survey, ensembles[setting.precision], setting, shard_rows, rounds, machine
                    )
                except ProviderError as error:  # TensorRT is listed where its library is not
                    reason = str(error)
                else:
                    found["measured"].append(row)
                    print(json.dumps(row), file=sys.stderr, flush=True)
            if reason:
                found["left_out"].append({**asdict(setting), "reason": reason})
        for provider in sorted({row["provider"] for row in found["measured"]}):
            found["score_minus_cpu_fp32"][provider] = largest_differences(ensembles, provider)
    return found


def settings_of(options: argparse.Namespace) -> Iterator[Setting]:
    """Every provider with every precision and number of actors, the plainest first."""
    chosen = ["cuda", "tensorrt"] if options.provider == "gpu" else [options.provider]
    for provider, actors, precision in itertools.product(
        chosen, options.actors, options.precisions
    ):
        yield Setting(provider, precision, actors)


def main() -> None:
    """Print the measurement as one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--provider", default="gpu", choices=["gpu", "cpu", "cuda", "tensorrt"])
    parser.add_argument("--ensemble", default="ps1-gri", help="a name in the zoo or a path")
    parser.add_argument("--precisions", nargs="+", choices=PRECISIONS, default=list(PRECISIONS))
    parser.add_argument("--actors", type=int, nargs="+", default=[1, 2, 4])
    parser.add_argument("--cutouts", type=int, default=65_536)
    parser.add_argument("--shard-rows", type=int, default=4096)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--limit-s", type=float, default=500.0)
    parser.add_argument("--small", action="store_true", help="one actor, one round, 256 cutouts")
    options = parser.parse_args()
    if options.small:
        options.actors, options.cutouts, options.rounds = [1], 256, 1
    found = measure(
        list(settings_of(options)),
        options.ensemble,
        options.cutouts,
        options.rounds,
        options.shard_rows,
        options.limit_s,
    )
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
