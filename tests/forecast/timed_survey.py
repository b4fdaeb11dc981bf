"""A simulated survey of some size, and a run of it whose stages are timed.

    python -m tests.forecast.timed_survey SURVEY.yaml

runs it and prints one JSON object: seconds of each stage, start-up by itself.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import yaml

from lenspipe.bench.job import write_survey
from lenspipe.config import load_survey
from lenspipe.forecast.stage_clock import StageClock
from lenspipe.job import run_survey
from lenspipe.models.locate import find
from lenspipe.telling.events import Events
from lenspipe.telling.progress import SilentProgress

PARTS = 32
PART_ROWS = 500_000  # of a file: each is one part of stage `select`
# Goes through DuckDB, and costs it about a tenth of a second for a part.
CUT = "i_mag < 21.0 AND sqrt(pow(sin(radians(ra)), 2) + pow(cos(radians(dec)), 2)) > -1.0"


def make_timed_survey(folder: Path, selected: int, parts: int = PARTS) -> Path:
    """Write it and return its file. The selected rows of a part have neighbouring pixels, as in a
    catalogue that is ordered by position."""
    folder.mkdir(parents=True)
    survey = write_survey(folder, _one_network(folder), selected)
    (folder / "catalogue.parquet").unlink()
    (folder / "catalogue").mkdir()
    each = selected // parts
    rng = np.random.default_rng(0)
    for part in range(parts):
        table = _catalogue(rng, part, each)
        pq.write_table(table, folder / "catalogue" / f"part-{part:03d}.parquet")
    content = survey.model_dump(mode="json", exclude={"base", "cutouts"}, exclude_unset=True)
    content["cutouts"] = survey.cutouts.model_dump(mode="json", exclude_unset=True)
    content |= {"sources": {"path": "catalogue/"}, "cuts": {"bright_enough": CUT}}
    path = folder / "survey.yaml"
    path.write_text(yaml.safe_dump(content), encoding="utf-8")
    return path


def _one_network(folder: Path) -> str:
    content = {
        "name": "one",
        "members": [str(find("ps1-resnet").absolute())],
        "blender": {"kind": "mean"},
        "calibration": {"kind": "platt", "slope": 1.0, "prevalence": 0.5},
    }
    path = folder / "one.yaml"
    path.write_text(yaml.safe_dump(content), encoding="utf-8")
    return str(path)


def _catalogue(rng: np.random.Generator, part: int, selected: int) -> pa.Table:
    first = part * PART_ROWS
    chosen = np.sort(rng.choice(PART_ROWS, selected, replace=False))
    i_mag = rng.uniform(21.5, 24.0, PART_ROWS).astype(np.float32)
    i_mag[chosen] = rng.uniform(17.0, 20.9, selected)
    row = np.zeros(PART_ROWS, np.int32)
    row[chosen] = part * selected + np.arange(selected)
    return pa.table(
        {
            "object_id": np.arange(first, first + PART_ROWS),
            "ra": rng.uniform(10.0 * part, 10.0 * part + 1.0, PART_ROWS),
            "dec": rng.uniform(0.0, 1.0, PART_ROWS),
            "i_mag": i_mag,
            "row": row,
        }
    )


class _Notes(SilentProgress):
    """When the phases without rows began."""

    def __init__(self) -> None:
        self.began: dict[str, float] = {}

    def note(self, text: str) -> None:
        self.began[text.split(maxsplit=1)[0].rstrip(":")] = time.monotonic()


def main() -> None:
    """Run the survey that is named."""
    survey = load_survey(sys.argv[1])
    clock, notes = StageClock(survey.name), _Notes()
    began = time.monotonic()
    run_survey(survey, Events(clock, notes), fresh=True)
    ended = time.monotonic()
    select, score = clock.times["select"], clock.times["score"]
    found = {
        "select_s": select.seconds,
        "plan_s": score.started - notes.began["planning"],
        "score_s": score.seconds,
        "publish_s": ended - score.finished,
        "start_up_s": select.started - began + select.start_up_s + score.start_up_s,
    }
    sys.stdout.write(json.dumps(found) + "\n")


if __name__ == "__main__":
    main()
