"""The six networks of LEXACTUM on files of the Bologna challenge: `lenspipe score`, images/s.

Random weights: the speed does not hang on them. Rates leave out what a command does once, opening
the network and listing the files (`opening_s`). Each network is exported with ZScale named in its
card and run by the command's own function from the files' names to the written Parquet file. The
whole-command rows add a process of its own with its start. `bare` is ONNX Runtime's session alone
on the same arrays, already read and normalised, with the same threads and batch size: the limit.

LEXACTUM's figures are not published ones: they were measured with its own code on 2 cores of
another machine, on another day. Every ratio to them (`over_lexactum_indicative`) is indicative
only; `over_bare` compares within one process. A range's middle is taken as the geometric mean of
its ends, and so is the mean over networks.

    python -m benchmarks.lexactum --work /tmp/lexactum        # keeps files and networks there
"""

from __future__ import annotations

import argparse
import json
import math
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.bologna_files import PARTS, SIZE, write_part
from lenspipe.contracts import ProviderName
from lenspipe.cutouts import open_reader
from lenspipe.models import normalise, providers
from lenspipe.models.ensemble_file import describe_ensemble
from lenspipe.models.footprint import cpu_batch_size
from lenspipe.models.providers import ProviderOptions, parse_provider
from lenspipe.score.layout import find_layout
from lenspipe.score.listing import list_cutouts
from lenspipe.score.score_cutouts import ScoreSummary, score_cutouts

# Images/s of LEXACTUM's whole prediction path on 2 cores of another machine and day, lowest and
# highest seen, per part.
LEXACTUM_ON_2_CORES: dict[str, dict[str, tuple[float, float]]] = {
    "lensflow": {"space": (379, 766), "ground": (168, 251)},
    "lastro_epfl": {"space": (387, 678), "ground": (168, 194)},
    "cmu_deeplens": {"space": (49, 111), "ground": (65, 85)},
    "cas_swinburne": {"space": (194, 299), "ground": (94, 97)},
    "wsi_net": {"space": (194, 240), "ground": (125, 194)},
    "lensfinder": {"space": (195, 457), "ground": (97, 220)},
}
LAYOUTS = Path(__file__).parents[1] / "examples"


def export(name: str, part: str, path: Path) -> Path:
    """The network with weights drawn from seed 0 as one ONNX file, its card inside."""
    import torch  # training's own, not lenspipe's

    from lenspipe.contracts import InputSpec
    from lenspipe.models.card import ImageInput, ModelCard, Normalisation, Output, Training
    from training import architectures
    from training.export import export_graph, ship, versions

    bands, scale = PARTS[part]
    spec = InputSpec("image", tuple(bands), SIZE, scale)
    torch.manual_seed(0)
    network = architectures.build(name, {}, {spec.name: spec.shape})
    inputs = np.random.default_rng(0).random((2, *spec.shape), dtype=np.float32)
    graph = path.with_suffix(".graph")
    export_graph(network, {spec.name: inputs}, graph)
    card = ModelCard(
        name=f"{name}-{part}".replace("_", "-"),
        task="lens_finding",
        architecture=name,
        images=(
            ImageInput(name="image", bands=spec.bands, size_pixels=SIZE, pixel_scale_arcsec=scale),
        ),
        normalisation=Normalisation(name="zscale", in_graph=False),
        outputs=(Output(name="logit", meaning="of random weights"),),
        training=Training(
            recipe="none",
            recipe_sha256="0" * 64,
            training_set="none",
            training_set_sha256="0" * 64,
            n_train=0,
            seed=0,
        ),
        versions=versions(),
        licence="BSD-3-Clause",
        weights_sha256="",
        description="Random weights, for measurements of speed alone.",
    )
    ship(graph, card, path)
    graph.unlink()
    return path


def timed(call: Callable[[], Any]) -> tuple[float, float, Any]:
    """(seconds, CPU seconds of the whole process, what it gave)."""
    wall, cpu = time.perf_counter(), time.process_time()
    found = call()
    return time.perf_counter() - wall, time.process_time() - cpu, found


def require_scored(summary: ScoreSummary, rows: int) -> None:
    """RuntimeError where not every row was scored: the time would mean nothing."""
    if summary.scored != rows:
        raise RuntimeError(f"{summary.out}: {summary.scored} of {rows} rows were scored")


def measure(
    model: Path, public: Path, part: str, threads: int, rounds: int, provider: ProviderName
) -> dict[str, Any]:
    """Rates of one network: the command, the bare session, and what the steps take alone."""
    layout = LAYOUTS / f"bologna_{part}.yaml"
    out = model.with_suffix(".parquet")

    def command() -> Any:
        return score_cutouts(
            str(model), public, out, layout=layout, provider=provider, threads=threads
        )

    rows_at_once = cpu_batch_size([model])
    inputs = describe_ensemble(str(model)).inputs
    found = find_layout(public, layout)
    listing, listing_cpu, sources = timed(lambda: list_cutouts(found.options, found.base, False))
    reader = open_reader(found.options, found.base)
    reading, reading_cpu, batch = timed(lambda: reader.read(sources, inputs))
    pixels = batch.images["image"]
    scaling, scaling_cpu, scaled = timed(lambda: normalise.apply("zscale", {}, pixels, np))
    rows = len(pixels)
    rows_at_once = min(rows_at_once, rows)
    options = ProviderOptions(batch_rows=rows_at_once)
    session = providers.open_session(
        model.read_bytes(), provider, threads, 0, options, f"model {model}"
    )
    starts = range(0, rows // rows_at_once * rows_at_once, rows_at_once)
    parts = [scaled[start : start + rows_at_once] for start in starts]

    def bare() -> None:
        for pixels in parts:
            session.run(["logit"], {"image": pixels})

    seconds: dict[str, list[tuple[float, float]]] = {"score": [], "bare": []}
    opening: list[float] = []
    for _ in range(rounds):  # in turns, so that both meet the same neighbours
        _, cpu, summary = timed(command)
        require_scored(summary, sources.num_rows)
        seconds["score"].append((summary.seconds - summary.opening_seconds, cpu))
        opening.append(summary.opening_seconds)
        seconds["bare"].append(timed(bare)[:2])
    whole = statistics.median(
        wall + opened for (wall, _), opened in zip(seconds["score"], opening, strict=True)
    )
    score, score_cpu = map(statistics.median, zip(*seconds["score"], strict=True))
    alone, alone_cpu = map(statistics.median, zip(*seconds["bare"], strict=True))
    low, high = LEXACTUM_ON_2_CORES[model.stem.rpartition("-")[0]][part]
    count = len(parts) * rows_at_once
    bare_rate = count / alone
    return {
        "images_per_s": rows / score,
        "lexactum_on_2_cores": [low, high],
        "over_lexactum_indicative": rows / score / math.sqrt(low * high),
        "with_opening_per_s": rows / whole,
        "with_opening_over_lexactum_indicative": rows / whole / math.sqrt(low * high),
        "bare_per_s": bare_rate,
        "over_bare": rows / score / bare_rate,
        "images_per_cpu_s": rows / score_cpu,
        "bare_per_cpu_s": count / alone_cpu,
        "opening_s": statistics.median(opening),
        "batch_size": rows_at_once,
        "alone_ms_per_image": {
            "list": 1e3 * listing / rows,
            "read": 1e3 * reading / rows,
            "zscale": 1e3 * scaling / rows,
            "session": 1e3 / bare_rate,
        },
        "alone_cpu_ms_per_image": {
            "list": 1e3 * listing_cpu / rows,
            "read": 1e3 * reading_cpu / rows,
            "zscale": 1e3 * scaling_cpu / rows,
            "session": 1e3 * alone_cpu / count,
        },
    }


def whole_command(
    model: Path, public: Path, part: str, threads: int, provider: ProviderName
) -> float:
    """Seconds of `lenspipe score` in a process of its own, Python's start and imports included."""
    out = model.with_suffix(".command.parquet")
    arguments = ["score", str(model), str(public), "--out", str(out), "--no-report"]
    arguments += ["--layout", str(LAYOUTS / f"bologna_{part}.yaml"), "--provider", provider]
    command = [sys.executable, "-m", "lenspipe", *arguments, "--threads", str(threads)]
    return timed(lambda: subprocess.run(command, check=True, capture_output=True))[0]


def run(work: Path, options: argparse.Namespace) -> dict[str, Any]:
    """Everything, as one JSON object; progress goes to the standard error."""
    found: dict[str, Any] = {
        "objects": options.objects,
        "threads": options.threads,
        "provider": options.provider,
    }
    for part in options.parts:
        folder = work / f"{part}-{options.objects}"
        public = folder / "Public"
        if not public.exists():
            write_part(folder, part, options.objects)
        rows = {}
        for name in options.networks:
            model = work / f"{name}-{part}.onnx"
            if not model.exists():
                export(name, part, model)
            rows[name] = measure(
                model, public, part, options.threads, options.rounds, options.provider
            )
            if options.command:
                rows[name]["command_s"] = whole_command(
                    model, public, part, options.threads, options.provider
                )
            print(part, name, json.dumps(_rounded(rows[name])), file=sys.stderr, flush=True)
        found[part] = {
            "networks": rows,
            "mean_images_per_s": _mean([row["images_per_s"] for row in rows.values()]),
            "mean_bare_per_s": _mean([row["bare_per_s"] for row in rows.values()]),
            "mean_lexactum_on_2_cores": _mean(
                [math.sqrt(math.prod(row["lexactum_on_2_cores"])) for row in rows.values()]
            ),
            "mean_over_lexactum_indicative": _mean(
                [row["over_lexactum_indicative"] for row in rows.values()]
            ),
            "mean_images_per_cpu_s": _mean([row["images_per_cpu_s"] for row in rows.values()]),
            "mean_over_bare": _mean([row["over_bare"] for row in rows.values()]),
        }
    load = os.getloadavg()[0]
    return {**found, "machine": {"cpus": len(os.sched_getaffinity(0)), "load_at_end": load}}


def _mean(values: list[float]) -> float:
    return math.exp(statistics.fmean(map(math.log, values)))


def _rounded(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _rounded(item) for key, item in value.items()}
    return float(f"{value:.3g}") if isinstance(value, float) else value


def main() -> None:
    """Print the measurement as one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--objects", type=int, default=2000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--parts", nargs="+", choices=list(PARTS), default=list(PARTS))
    parser.add_argument(
        "--networks",
        nargs="+",
        choices=list(LEXACTUM_ON_2_CORES),
        default=list(LEXACTUM_ON_2_CORES),
    )
    parser.add_argument("--provider", type=parse_provider, default="cpu")
    parser.add_argument("--command", action="store_true", help="time a process of its own too")
    parser.add_argument("--work", type=Path, help="folder that keeps files and networks")
    options = parser.parse_args()
    if options.work is not None:
        options.work.mkdir(parents=True, exist_ok=True)
        print(json.dumps(_rounded(run(options.work, options)), indent=1))
        return
    with tempfile.TemporaryDirectory() as folder:
        print(json.dumps(_rounded(run(Path(folder), options)), indent=1))


if __name__ == "__main__":
    main()
