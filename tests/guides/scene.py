"""A folder in which the names that the pages use exist, and where their commands are run."""

from __future__ import annotations

import os
import re
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pacsv
import pyarrow.parquet as pq
import yaml
import zarr
from typer.testing import CliRunner

from lenspipe.cli import app
from lenspipe.config import load_survey
from lenspipe.job import run_survey
from lenspipe.metrics import RunMetrics
from lenspipe.telling.events import Events
from lenspipe.telling.progress import SilentProgress
from tests.guides.pages import ROOT, pieces
from tests.toy_survey import make_survey
from training.simulate.sky import SCALES, make_sky

OWN = "docs/own-survey.md"  # the page whose YAML pieces are one survey file
_LINKED = ("deploy", "docs", "examples", "helm", "pyproject.toml", "lenspipe")
_SCHEME = {
    "grades": [
        {"name": name, "key": name.lower(), "label": name, "value": value}
        for name, value in (("A", 4), ("B", 3), ("C", 2), ("D", 1), ("X", 0))
    ]
}
# Programs that take the place of those on the path, by their names: what they are, with a free port
# where the page's own may be taken, and nothing else.
_PROGRAMS = {
    "lenspipe": (
        'if [ "$1" = serve ]; then set -- "$@" --port "$GUIDES_PORT"; fi\n'
        f'exec {sys.executable} -m lenspipe "$@"'
    ),
    "python": f'exec {sys.executable} "$@"',
    "prometheus": 'exec "$GUIDES_PROMETHEUS" "$@" --web.listen-address="127.0.0.1:$GUIDES_PORT"',
    "helm": 'exec "$GUIDES_HELM" "$@"',
}


@dataclass(frozen=True)
class Scene:
    """folder: where commands start. programs: what is first on their path. packages: Python's."""

    folder: Path
    programs: Path
    packages: Path

    def copy(self, folder: Path) -> Scene:
        """Another one, so that no block meets what another left."""
        shutil.copytree(self.folder.parent, folder, symlinks=True)
        return Scene(folder / self.folder.name, self.programs, self.packages)

    def erase_run(self) -> None:
        """So that the survey is run and not only found done; grades stay, as in `--fresh`."""
        for path in (self.folder / "RUN").iterdir():
            if path.is_dir():
                shutil.rmtree(path)
            elif not path.name.startswith("grades."):
                path.unlink()

    def environment(self, port: int, **more: str) -> dict[str, str]:
        """Variables of a block's shell."""
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("RAY_", "LENSPIPE_"))}
        path = os.pathsep.join([str(self.programs), kept.get("PATH", "")])
        python = os.pathsep.join([str(ROOT), str(self.packages)])
        return {
            **kept,
            "PATH": path,
            "PYTHONPATH": python,
            "GUIDES_PORT": str(port),
            "HOME": str(self.folder),
            **more,
        }


def make_scene(folder: Path) -> Scene:
    """What no block needs a job for is there already: two finished runs."""
    scene = Scene(folder / "all" / "here", folder / "programs", folder / "packages")
    here = scene.folder
    (here / ".venv" / "bin").mkdir(parents=True)
    for name in _LINKED:
        (here / name).symlink_to(ROOT / name)
    _write_programs(scene)
    write_skies(here)
    _write_runs(here)
    _write_cutouts(here)
    _write_lists(here, scene.packages)
    return scene


def _write_programs(scene: Scene) -> None:
    scene.programs.mkdir()
    for name, text in _PROGRAMS.items():
        path = scene.programs / name
        path.write_text(f"#!/bin/sh\n{text}\n", "utf-8")
        path.chmod(0o755)
    for name in ("lenspipe", "python"):
        (scene.folder / ".venv" / "bin" / name).symlink_to(scene.programs / name)


def write_skies(here: Path) -> None:
    """The demo's, but small; most of it are edges."""
    sky = here / "demo" / "sky"
    assert make_sky(sky, 1, SCALES["small"], 1)
    text = (sky / "survey.yaml").read_text("utf-8")
    text = re.sub("failure_limit: [0-9.]+", "failure_limit: 1", text)
    (sky / "survey.yaml").write_text(text, "utf-8")
    text = re.sub(r"(catalogue/|tiles/\*)", r"demo/sky/\1", text)
    text = text.replace("{fpr: 1.0e-3}", "{top: 8}").replace("../run/", "RUN/")
    known = "known_lenses: {path: lenscat.csv, radius_arcsec: 2.0}\n"
    (here / "SURVEY.yaml").write_text(text + known, "utf-8")
    watched = text.replace("runtime: {", "runtime: {metrics_port: 9100, metrics_host: 0.0.0.0, ")
    (here / "survey.yaml").write_text(watched, "utf-8")
    own = re.sub("failure_limit: [0-9.]+", "failure_limit: 1", pieces(OWN))
    (here / "north.yaml").write_text(own, "utf-8")
    truth = pq.read_table(sky / "truth.parquet")
    lenses = truth.filter(pc.equal(truth["kind"], "lens"))
    listed = pa.table(
        {"name": [f"L{k}" for k in range(len(lenses))], "RA": lenses["ra"], "DEC": lenses["dec"]}
    )
    pacsv.write_csv(listed, here / "lenscat.csv")


def _write_runs(here: Path) -> None:
    """RUN, also as demo/run; and `run`, of more sources and of toy networks."""
    _run(here / "SURVEY.yaml")
    shutil.copytree(here / "RUN", here / "demo" / "run")
    folder = here / "toy"
    _run(make_survey(folder, 6000))
    shutil.move(folder / "run", here / "run")


def _run(survey: Path) -> None:
    read = load_survey(survey)
    run_survey(read, Events(RunMetrics(read.name), SilentProgress()))


def _write_cutouts(here: Path) -> None:
    """FOLDER in the layout of examples/ps1_lenses.yaml, cutouts.h5 without a catalogue."""
    draw = np.random.default_rng(0)
    for folder in (here / "FOLDER", here.parent / "shared" / "data" / "ps1_lenses"):
        folder.mkdir(parents=True)
        with h5py.File(folder / "ps1_grizy_70px.h5", "w") as file:
            file["images"] = draw.normal(0, 3, (4, 5, 70, 70)).astype(np.float32)
            file["images"].attrs["pixel_scale_arcsec"] = 0.25
        exposures: dict[str, Any] = {f"exptime_{band}": [900.0] * 4 for band in "grizy"}
        table = {
            "folder": ["a", "b", "c", "d"],
            "ra": [1.0, 2.0, 3.0, 4.0],
            "dec": [0.0] * 4,
            "catalogue_row": [0, 1, 2, 3],
            "group": ["lens", "lens", "galaxy", "galaxy"],
            "arc_visible_by_eye": ["yes", "no", "no", "no"],
            **exposures,
        }
        pacsv.write_csv(pa.table(table), folder / "ps1_catalogue.csv")
    with h5py.File(here / "cutouts.h5", "w") as file:
        file["images"] = draw.normal(0, 3, (4, 3, 60, 60)).astype(np.float32)
        file["images"].attrs["bands"] = ["g", "r", "i"]
        file["images"].attrs["pixel_scale_arcsec"] = 0.25


def _write_lists(here: Path, packages: Path) -> None:
    """Catalogues and lists of others, about the candidates of RUN."""
    data = packages / "lenscat" / "data"
    data.mkdir(parents=True)
    (data.parent / "__init__.py").touch()
    shutil.copy(here / "lenscat.csv", data / "catalog.csv")
    scored = pq.read_table(here / "RUN" / "catalogue" / "dataset", columns=["ra", "dec"])
    pq.write_table(
        pa.table({"ra_deg": scored["ra"], "dec_deg": scored["dec"]}), here / "gaia.parquet"
    )
    ids = candidates(here / "RUN")
    truth = pa.table({"object_id": ids[:2], "is_lens": [True, False]})
    pacsv.write_csv(truth, here / "known.csv")
    grades = ["A", "X", "B", "X"]
    pacsv.write_csv(pa.table({"object_id": ids[:4], "grade": grades}), here / "list.csv")
    for grader in ("bea", "cem"):
        words = ["grades", "import", here / "RUN", here / "list.csv", "--grader", grader]
        done = CliRunner().invoke(app, [str(word) for word in words])
        assert done.exit_code == 0, done.output
    (here / "grades.yaml").write_text(yaml.safe_dump(_SCHEME), "utf-8")
    tokens = here / "tokens.yaml"
    tokens.touch(mode=0o600)
    tokens.write_text(f"ana: {'0123456789abcdef' * 2}\n", "utf-8")


def candidates(run: Path) -> list[int]:
    """Ids of its candidates, the best first."""
    group = zarr.open_group(run / "candidates.zarr", mode="r")
    found: Any = group["object_id"]
    return [int(one) for one in found[:]]
