"""The script for Slurm by itself: when its job goes back into the queue, and what it makes in /tmp.

`lenspipe`, `ray`, `srun` and `scontrol` are stand-ins, so no job takes longer than its script does.
"""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cluster.ray_nodes import ROOT, wait_until
from tests.deploy.stand_ins import NEVER, StandIns

SCRIPT = ROOT / "deploy" / "slurm" / "lenspipe.sbatch"
TMP = Path("/tmp")  # noqa: S108 - of the script
_LONGEST = 107 - len("/ray/session_2026-01-01_00-00-00_000000_1234567/sockets/plasma_store")
# Notes Ray's folder, its owner and its mode, link or not; a worker's Ray goes on.
_RAY = """#!/bin/bash
stat --format '%n %u %a %F' "$RAY_TMPDIR" >>"$0.calls"
case " $* " in *" --block "*) exec sleep 60 ;; esac
"""
# Runs what it is told on one further node, here.
_SRUN = """#!/bin/bash
while [ "$1" != bash ]; do shift; done
SLURM_NODEID=0 exec "$@"
"""


class Job:
    """A job of Slurm's that is put back into the queue whenever it asks for that."""

    def __init__(self, folder: Path) -> None:
        self.number = str(10**8 + secrets.randbelow(9 * 10**8))
        self.folder = folder / "submission"
        self.folder.mkdir()
        self.programs = StandIns(folder / "programs")
        for name in ("ip", "lenspipe", "ray", "scontrol"):
            self.programs.add(name)

    def begin(self, **changes: str) -> subprocess.Popen[bytes]:
        """One life of it. changes: of its environment."""
        own = {
            "PATH": self.programs.path,
            "SLURM_JOB_ID": self.number,
            "SLURM_JOB_NUM_NODES": "1",
            "LENSPIPE_HEAD_ADDRESS": "127.0.0.1",
        }
        return subprocess.Popen(
            ["bash", SCRIPT, "survey.yaml"],
            cwd=self.folder,
            env={**own, **changes},
            stdout=subprocess.DEVNULL,
        )

    def returns(self) -> int:
        """How often it went back into the queue."""
        asked = self.programs.calls("scontrol")
        assert set(asked) <= {f"requeue {self.number}"}
        return len(asked)

    def in_tmp(self) -> list[Path]:
        """What is there of it."""
        return sorted(TMP.glob(f"lenspipe-{self.number}-*"))


@pytest.fixture
def job(tmp_path: Path) -> Iterator[Job]:
    made = Job(tmp_path)
    yield made
    for left in made.in_tmp():
        if left.is_symlink():
            left.unlink()
        else:
            shutil.rmtree(left)


LIMIT = "limit"


def reach_limit(job: Job, process: subprocess.Popen[bytes], runs: int) -> None:
    """What Slurm does minutes before the limit, once another run than those is under way."""
    wait_until(lambda: len(job.programs.calls("lenspipe")) > runs, "not running")
    process.send_signal(signal.SIGUSR1)


@pytest.mark.parametrize(
    ("ends", "returns"),
    [
        ([0], 0),
        ([2], 0),
        ([3], 0),
        ([1, 0], 1),
        ([1, 1, 1], 2),
        ([LIMIT, LIMIT, LIMIT, 1, 1, 1], 5),
        ([1, 1, LIMIT, 1, 1, 1], 5),
    ],
)
def test_a_job_goes_back_into_the_queue_at_its_limit_and_some_times_after_status_1(
    job: Job, ends: list[int | str], returns: int
) -> None:
    job.programs.add("lenspipe", *(NEVER if end == LIMIT else end for end in ends))
    for life, end in enumerate(ends):
        before = len(job.programs.calls("lenspipe"))
        process = job.begin(SLURM_RESTART_COUNT=str(life))
        if end == LIMIT:
            reach_limit(job, process, before)
        assert process.wait(20) == (143 if end == LIMIT else end)
        assert not (job.folder / f".lenspipe-{job.number}").exists()
        assert job.returns() == min(life + 1, returns), ends[: life + 1]
    assert list(job.folder.iterdir()) == []
    assert job.in_tmp() == []


def test_requeues_of_slurm_itself_are_no_failures(job: Job) -> None:
    job.programs.add("lenspipe", 1, 1)
    assert job.begin(SLURM_RESTART_COUNT="9").wait(20) == 1
    assert job.returns() == 1
    assert job.begin(SLURM_RESTART_COUNT="10", LENSPIPE_TRIES="2").wait(20) == 1
    assert job.returns() == 1


def test_a_job_that_is_asked_to_end_stays_ended(job: Job) -> None:
    job.programs.add("lenspipe", NEVER)
    process = job.begin()
    wait_until(lambda: job.programs.calls("lenspipe"), "not running")
    process.terminate()
    assert process.wait(20) == 143
    assert job.returns() == 0
    assert list(job.folder.iterdir()) == []


def take(path: Path, how: str, folder: Path) -> None:
    """Have somebody make the path before the job does."""
    if how == "a link":
        (folder / "elsewhere").mkdir(mode=0o700, exist_ok=True)
        path.symlink_to(folder / "elsewhere")
    elif how == "another user's":
        if os.geteuid() != 0:
            pytest.skip("only root makes a folder another user's")
        path.mkdir(mode=0o700)
        os.chown(path, 1, 1)
    elif how == "open to others":
        path.mkdir()
        path.chmod(0o777)
    elif how == "its own":
        path.mkdir(mode=0o700)


@pytest.mark.parametrize(
    ("how", "is_used"),
    [
        ("free", True),
        ("its own", True),
        ("a link", False),
        ("open to others", False),
        ("another user's", False),
    ],
)
def test_ray_has_a_folder_of_this_user_alone(
    job: Job, tmp_path: Path, how: str, is_used: bool
) -> None:
    named = [TMP / f"lenspipe-{job.number}-{node}" for node in (0, 1)]
    for path in named:
        take(path, how, tmp_path)
    before = job.in_tmp()
    job.programs.write("ray", _RAY)
    job.programs.write("srun", _SRUN)
    job.programs.add("lenspipe", NEVER)
    process = job.begin(SLURM_JOB_NUM_NODES="2")
    wait_until(
        lambda: len(job.programs.calls("ray")) == 2 and job.programs.calls("lenspipe"),
        "not on two nodes",
        lambda: process.poll() is None,
    )
    for path, told in zip(named, job.programs.calls("ray"), strict=True):
        used, *rest = told.split(" ", 3)
        assert rest == [str(os.geteuid()), "700", "directory"]
        assert (used == str(path)) == is_used
        assert len(used) <= _LONGEST
    process.terminate()
    assert process.wait(30) == 143
    assert job.in_tmp() == ([] if is_used else before)
