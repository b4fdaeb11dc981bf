"""A disk that fills: the run rests, stops in one line, and the same command ends as if nothing
had been. The disk is a real tmpfs in a mount namespace of its own; where none can be made, the last
test's driver, whose store refuses, is what is left."""

from __future__ import annotations

import errno
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lenspipe.config import load_survey
from lenspipe.errors import StoppedError
from lenspipe.job import run_survey
from lenspipe.metrics import RunMetrics
from lenspipe.run_directory import LOCK, METRICS, RUN
from lenspipe.storage.patience import ATTEMPTS
from lenspipe.storage.store import Store
from lenspipe.telling.events import Events
from lenspipe.telling.progress import SilentProgress
from tests.chaos.results import assert_same
from tests.chaos.small_disk import FULL, Disk, Ended, Job, can_mount, run_on_small_disk
from tests.toy_survey import make_survey

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(900)]

# What the event line matches at which a stage begins.
STAGES = {
    "select": '"stage_started".*"select"',
    "plan": "planning the shards",
    "score": '"stage_started".*"score"',
    "publish": "publishing: catalogue",
}


@pytest.fixture(scope="module")
def small_disks() -> None:
    reason = can_mount()
    if reason:
        pytest.skip(f"no tmpfs can be mounted in a namespace here: {reason}")


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory, ray_cluster: object) -> Path:
    survey = make_survey(tmp_path_factory.mktemp("undisturbed"))
    run_survey(load_survey(survey), Events(RunMetrics("toy"), SilentProgress()))
    return survey.parent / "run"


def run(folder: Path, *jobs: Job, what: str = "bytes") -> list[Ended]:
    survey = make_survey(folder)
    (folder / "run").mkdir()
    return run_on_small_disk(
        Disk(str(survey), str(folder / "run"), str(folder / "kept"), jobs, what=what), 800.0
    )


@pytest.mark.usefixtures("small_disks")
def test_a_disk_that_is_full_at_any_stage_stops_the_run_and_the_next_goes_on(
    tmp_path: Path, undisturbed: Path
) -> None:
    """One run, stopped at each of its four stages in turn."""
    *stopped, last = run(tmp_path, *(Job((at,)) for at in STAGES.values()), Job())
    for stage, ended in zip(STAGES, stopped, strict=True):
        assert (ended.status, ended.fills) == (1, 1), (stage, ended.lines[-3:])
        line = ended.lines[-1]
        assert re.search(r"^StoppedError: storage failed 6 times: .*No space left on device", line)
        assert re.search(r"\(0 bytes free, [\d,]+ more files on the disk of .*/run.*\)", line)
        assert line.endswith("; the same command resumes")
    assert last.status == 0, last.lines[-3:]
    assert_same(tmp_path / "kept", undisturbed)


@pytest.mark.usefixtures("small_disks")
@pytest.mark.parametrize("what", ["bytes", "files"])
def test_a_disk_that_is_full_for_a_while_only_costs_time(
    tmp_path: Path, undisturbed: Path, what: str
) -> None:
    """At every stage of one run; once of space, once of inodes."""
    patient = Job(tuple(STAGES.values()), free_after_s=0.5, rest_s=0.5)
    [ended] = run(tmp_path, patient, what=what)
    assert (ended.status, ended.fills) == (0, len(STAGES)), ended.lines[-3:]
    assert sum(FULL in line for line in ended.lines) >= len(STAGES)
    assert_same(tmp_path / "kept", undisturbed)


class _Quota:
    """A store whose disk has no room for a while: each name is refused so often, then taken."""

    def __init__(self, refusals: int) -> None:
        self._left: dict[str, int] = {}
        self._refusals = refusals
        self.refused: list[str] = []

    def ask(self, name: str) -> None:
        left = self._left.setdefault(name, self._refusals)
        if left:
            self._left[name] = left - 1
            self.refused.append(name)
            raise OSError(errno.EDQUOT, "Disk quota exceeded", name)

    def put_into(self, monkeypatch: pytest.MonkeyPatch) -> None:
        for method in ("write", "create", "writing"):
            monkeypatch.setattr(Store, method, self._asking(getattr(Store, method)))

    def _asking(self, call: Callable[..., Any]) -> Callable[..., Any]:
        def asked(store: Store, name: str, *data: bytes) -> Any:
            if name not in (LOCK, METRICS, RUN):
                self.ask(name)
            return call(store, name, *data)

        return asked


@pytest.mark.parametrize("refusals", [2, 99])
def test_a_quota_that_is_spent_is_waited_for_by_whatever_the_driver_writes(
    tmp_path: Path, undisturbed: Path, monkeypatch: pytest.MonkeyPatch, refusals: int
) -> None:
    """Commits, plan and products: each is refused twice; then, in another run, for ever."""
    survey = make_survey(tmp_path)
    events = Events(RunMetrics("toy"), SilentProgress())
    quota = _Quota(refusals)
    with monkeypatch.context() as full:
        full.setattr("lenspipe.storage.patience.sleep", lambda _seconds: None)
        quota.put_into(full)
        if refusals < ATTEMPTS:
            run_survey(load_survey(survey), events)
            assert {name.partition("/")[0] for name in quota.refused} >= {
                "shards",
                "plan",
                "report",
            }
        else:
            with pytest.raises(StoppedError, match=r"storage failed 6 times: .*quota exceeded"):
                run_survey(load_survey(survey), events)
    run_survey(load_survey(survey), Events(RunMetrics("toy"), SilentProgress()))
    assert_same(tmp_path / "run", undisturbed)
