"""The disk of the pixels is away for a while in a whole job: it leaves no trace."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from lenspipe.config import load_survey
from lenspipe.job import run_survey
from lenspipe.metrics import RunMetrics
from lenspipe.run.verify import verify
from lenspipe.run_directory import RunDirectory, Stage
from lenspipe.telling.events import Events
from lenspipe.telling.progress import SilentProgress
from tests.toy_survey import make_survey

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(300)]


class _Away(SilentProgress):
    """The folder is empty, as where nothing is mounted, from the beginning of stage `score` to the
    first retry."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.elsewhere = folder, folder.with_name("elsewhere")
        self.retries: list[str] = []

    def stage_started(self, stage: Stage, total_rows: int, done_rows: int) -> None:  # noqa: ARG002  # the interface
        if stage == "score":
            self.folder.rename(self.elsewhere)
            self.folder.mkdir()

    def retried(
        self,
        stage: Stage,  # noqa: ARG002  # the interface
        message: str = "",
        shard: str = "",  # noqa: ARG002  # the interface
    ) -> None:
        self._come_back(message)

    def message(self, text: str) -> None:
        if "FileNotFoundError" in text:
            self._come_back(text)

    def _come_back(self, why: str) -> None:
        if not self.retries:
            self.folder.rmdir()
            self.elsewhere.rename(self.folder)
        self.retries.append(why)


def test_a_disk_of_pixels_that_is_away_for_a_while_leaves_no_trace(
    tmp_path: Path, ray_cluster: object
) -> None:
    survey = make_survey(tmp_path, rows=200)
    folder = tmp_path / "pixels"
    folder.mkdir()
    (tmp_path / "cutouts.h5").rename(folder / "cutouts.h5")
    content = yaml.safe_load(survey.read_text())
    content["cutouts"]["path"] = "pixels/cutouts.h5"
    survey.write_text(yaml.safe_dump(content, sort_keys=False))
    progress = _Away(folder)
    info = run_survey(load_survey(survey), Events(RunMetrics("toy"), progress))
    assert any("FileNotFoundError" in line for line in progress.retries), progress.retries
    assert info.funnel.selected > 0
    assert info.funnel.scored == info.funnel.selected
    run = RunDirectory(str(tmp_path / "run"))
    assert verify(run) == []
