"""Jobs that are killed, damaged or robbed of pixels, and the next call of the same command."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import h5py
import psutil
import pytest

from lenspipe.config import load_survey
from lenspipe.errors import CorruptRunError, InputError, ResumeRefusedError
from lenspipe.job import run_survey
from lenspipe.metrics import RunMetrics
from lenspipe.run.verify import verify
from lenspipe.run_directory import RunDirectory, ShardRecord
from lenspipe.telling.events import Events
from lenspipe.telling.progress import make_progress
from tests.toy_jobs import assert_same_scores, results, run, run_undisturbed
from tests.toy_survey import make_survey

pytestmark = [pytest.mark.chaos, pytest.mark.usefixtures("ray_cluster"), pytest.mark.timeout(400)]


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory, ray_cluster: object) -> Path:
    """A survey that ran once, with nothing in its way."""
    return run_undisturbed(tmp_path_factory.mktemp("undisturbed"))


@pytest.mark.slow
def test_an_erasing_that_was_killed_is_finished(undisturbed: Path, tmp_path: Path) -> None:
    survey = make_survey(tmp_path / "erased")
    run(survey)
    directory = RunDirectory(str(survey.parent / "run"))
    directory.write_json("run.json", {"state": "erasing"})
    directory.store.delete_folder("shards")
    run(survey)
    assert_same_scores(survey, undisturbed)
    assert verify(directory) == []


def test_a_plan_lost_while_failures_of_select_are_retried_scores_every_source_once(
    undisturbed: Path, tmp_path: Path
) -> None:
    """Its next plan has rows that the first one lacked: scores by the first one's rows are void."""
    survey = make_survey(tmp_path)
    part = tmp_path / "catalogue" / "part.parquet"
    whole, times = part.read_bytes(), part.stat()
    broken = bytearray(whole)
    for at in range(200, len(whole) // 3, 97):
        broken[at] ^= 255
    part.write_bytes(broken)
    os.utime(part, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert run(survey).failed > 50
    part.write_bytes(whole)
    os.utime(part, ns=(times.st_atime_ns, times.st_mtime_ns))
    (tmp_path / "run" / "plan" / "plan.json").unlink()
    funnel = run(survey, retry_failed=True)
    assert (funnel.failed, funnel.accounted) == (0, True)
    assert results(survey)[0].equals(results(undisturbed)[0])
    assert verify(RunDirectory(str(tmp_path / "run"))) == []


@pytest.mark.parametrize("folder", ["select", "scores"])
def test_a_damaged_part_is_told_and_done_again(
    undisturbed: Path, tmp_path: Path, folder: str
) -> None:
    survey = make_survey(tmp_path)
    run(survey)
    part = sorted((tmp_path / "run" / folder).iterdir())[0]
    part.write_bytes(part.read_bytes()[:-50])
    for lost in ("catalogue/hats.properties", "candidates.zarr/zarr.json"):
        (tmp_path / "run" / lost).unlink()
    if folder == "scores":
        with pytest.raises(CorruptRunError, match=rf"{part.name}: damaged.*--retry-failed"):
            run(survey)
    run(survey, retry_failed=True)
    assert results(survey)[0].equals(results(undisturbed)[0])
    assert verify(RunDirectory(str(tmp_path / "run"))) == []


def test_pixels_that_were_away_are_scored_when_they_are_back(
    undisturbed: Path, tmp_path: Path
) -> None:
    survey = make_survey(tmp_path / "away")
    wanted = results(undisturbed)[0]["object_id"].to_pylist()
    with h5py.File(survey.parent / "cutouts.h5", "a") as file:
        kept = file["images"][...]
        del file["images"]
        file.create_dataset("images", data=kept[: wanted[len(wanted) // 2] - 1000])
    away = run(survey)
    assert away.reasons == {"not_found": len(wanted) - len(wanted) // 2}
    with h5py.File(survey.parent / "cutouts.h5", "a") as file:
        del file["images"]
        file.create_dataset("images", data=kept)
    with pytest.raises(ResumeRefusedError, match=r"pixels\.g\.bytes"):
        run(survey)
    assert run(survey, retry_failed=True).reasons == {}
    assert_same_scores(survey, undisturbed)
    assert verify(RunDirectory(str(survey.parent / "run"))) == []


@pytest.fixture
def driver(tmp_path: Path) -> Iterator[Path]:
    """A survey large enough that a kill meets it at work."""
    yield make_survey(tmp_path / "killed", rows=600)
    shutil.rmtree(tmp_path / "killed", ignore_errors=True)


def start(survey: Path) -> subprocess.Popen[bytes]:
    environment = {k: v for k, v in os.environ.items() if not k.startswith("RAY_")}
    return subprocess.Popen(
        [sys.executable, "-m", "lenspipe", "run", str(survey)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env=environment,
        start_new_session=True,
    )


def wait_for(folder: Path, process: subprocess.Popen[bytes], seconds: float = 90.0) -> None:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline and process.poll() is None:
        if folder.is_dir() and any(folder.iterdir()):
            return
        time.sleep(0.01)
    raise AssertionError(f"nothing came to be in {folder}")


@pytest.mark.parametrize("stage", ["plan", "scores"])
def test_a_killed_driver_is_resumed_to_the_undisturbed_result(
    driver: Path, undisturbed: Path, stage: str
) -> None:
    process = start(driver)
    wait_for(driver.parent / "run" / stage, process)
    if stage == "plan":  # while it lives, nobody else may write there
        with pytest.raises(InputError, match=f"process {process.pid}"):
            run(driver)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    funnel = run(driver)
    assert funnel.accounted
    assert_same_scores(driver, undisturbed)
    assert verify(RunDirectory(str(driver.parent / "run"))) == []


class _KillOnce(Events):
    """Kills one scoring actor of this session when the first shard is committed."""

    killed: list[int]

    def committed(self, record: ShardRecord) -> None:
        super().committed(record)
        if record.stage == "score" and not self.killed:
            actors = [
                child
                for child in psutil.Process().children(recursive=True)
                if "ray::_Host" in " ".join(child.cmdline())
            ]
            actors[0].kill()
            self.killed.append(actors[0].pid)


def test_a_killed_scoring_actor_costs_no_row(undisturbed: Path, tmp_path: Path) -> None:
    survey = make_survey(
        tmp_path / "actor",
        runtime={"shard_rows": 16, "provider": "cpu", "failure_limit": 0.0},
    )
    with make_progress() as progress:
        metrics = RunMetrics("toy")
        events = _KillOnce(metrics, progress)
        object.__setattr__(events, "killed", [])
        run_survey(load_survey(survey), events)
    assert len(events.killed) == 1
    assert b"lenspipe_actor_restarts_total 1.0" in metrics.text()
    assert_same_scores(survey, undisturbed)
