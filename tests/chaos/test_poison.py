"""One row that nothing can process: it alone fails, with its reason, and the run goes on."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from lenspipe.config import load_survey
from lenspipe.job import run_survey
from lenspipe.metrics import RunMetrics
from lenspipe.run.verify import verify
from lenspipe.run_directory import RunDirectory, ShardRecord
from lenspipe.stages import scoring
from lenspipe.stages.planning import read_rows
from lenspipe.stages.scoring import PlanRows, Scorer, ScoreSettings
from lenspipe.telling.events import Events
from lenspipe.telling.progress import SilentProgress
from tests.toy_survey import make_survey

pytestmark = [pytest.mark.chaos, pytest.mark.usefixtures("ray_cluster"), pytest.mark.timeout(600)]


def dies() -> None:
    os._exit(9)


def hangs() -> None:
    time.sleep(3600)


@dataclass(frozen=True)
class PoisonedScorer:
    """A scorer that does something terrible wherever one source is among its rows."""

    settings: ScoreSettings
    object_id: int
    deed: Callable[[], None]

    def __call__(self) -> Callable[..., ShardRecord]:
        scorer = Scorer(self.settings)
        run = RunDirectory(self.settings.run_url)

        def score(work: PlanRows, *fed: Any) -> ShardRecord:
            if self.object_id in read_rows(run, work.interval)["object_id"].to_pylist():
                self.deed()
            return scorer(work, *fed)

        return score


def make(folder: Path) -> Path:
    runtime = {
        "shard_rows": 16,
        "provider": "cpu",
        "scorers": 1,
        "max_attempts": 1,
        "shard_timeout_s": 6.0,
        "failure_limit": 1.0,
    }
    return make_survey(folder, rows=300, runtime=runtime, publish={"explain": 0, "mosaic": 4})


def run(survey: Path) -> RunDirectory:
    run_survey(load_survey(survey), Events(RunMetrics("toy"), SilentProgress()))
    return RunDirectory(str(survey.parent / "run"))


def scores(directory: RunDirectory) -> pa.Table:
    table = directory.read_folder("scores", ["score"])
    assert table is not None
    return table.sort_by("object_id")


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory, ray_cluster: object) -> pa.Table:
    return scores(run(make(tmp_path_factory.mktemp("undisturbed"))))


@pytest.mark.parametrize(
    ("deed", "reason"),
    [(dies, "worker_died"), pytest.param(hangs, "timed_out", marks=pytest.mark.slow)],
)
def test_the_row_fails_alone(
    undisturbed: pa.Table,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    deed: Callable[[], None],
    reason: str,
) -> None:
    poison = undisturbed["object_id"][len(undisturbed) // 2].as_py()
    monkeypatch.setattr(
        scoring, "ScorerFactory", lambda settings, **_: PoisonedScorer(settings, poison, deed)
    )
    directory = run(make(tmp_path))
    failures = directory.read_folder("failures", ["select", "score"])
    assert failures is not None
    assert failures["object_id"].to_pylist() == [poison]
    assert failures["reason"].to_pylist() == [reason]
    left = [row for row in undisturbed.to_pylist() if row["object_id"] != poison]
    assert scores(directory).to_pylist() == left
    assert verify(directory) == []
