from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from lenspipe.run_directory import RunDirectory
from lenspipe.stages.publish import publish
from tests.run.ended_run import (
    SETTINGS,
    begin,
    stamps,
)


@pytest.fixture
def run(tmp_path: Path) -> RunDirectory:
    """A run whose shards are all committed, but that was not published yet."""
    return begin(tmp_path / "run", "running")


@pytest.fixture(scope="package")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that ended; tests work on copies."""
    folder = tmp_path_factory.mktemp("published")
    run = begin(folder, "done")
    with pytest.MonkeyPatch.context() as monkeypatch:
        # matplotlib takes seconds and is tested with the report.
        monkeypatch.setattr("lenspipe.report._pictures", lambda *_: (None, None))
        publish(run, SETTINGS, stamps)
    return folder


@pytest.fixture
def ended(published: Path, tmp_path: Path) -> RunDirectory:
    return RunDirectory(str(shutil.copytree(published, tmp_path / "ended")))
