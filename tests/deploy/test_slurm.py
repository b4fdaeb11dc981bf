"""The script for Slurm, by shellcheck and by Slurm's own daemons on two hosts."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.chaos.job_process import JobProcess
from tests.chaos.results import assert_same
from tests.cluster.hosts import Host, lab
from tests.cluster.ray_nodes import ROOT, wait_until
from tests.cluster.slurm import Slurm, slurm
from tests.tools import require_tool
from tests.toy_survey import make_survey

pytestmark = pytest.mark.tool

TMP = Path("/tmp")  # noqa: S108 - of the script, on each node
SCRIPT = ROOT / "deploy" / "slurm" / "lenspipe.sbatch"


def test_the_script_has_no_fault_that_shellcheck_knows() -> None:
    done = subprocess.run(
        [require_tool("shellcheck"), SCRIPT], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout


@pytest.fixture(scope="module")
def hosts() -> Iterator[list[Host]]:
    # Sockets bear no long path, so this folder is not in pytest's.
    folder = Path(tempfile.mkdtemp(prefix="lp-", dir="/tmp"))
    try:
        with lab(["one", "two"], folder) as made:
            yield made
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="module")
def queue(hosts: list[Host]) -> Iterator[Slurm]:
    folder = Path(tempfile.mkdtemp(prefix="lp-", dir="/tmp"))
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("RAY_", "SLURM_"))}
    environment = {**kept, "PATH": path, "PYTHONPATH": str(ROOT)}
    environment["LENSPIPE_OBJECT_STORE_BYTES"] = "100000000"
    try:
        with slurm(hosts, folder, environment) as started:
            yield started
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@pytest.mark.chaos
@pytest.mark.timeout(900)
def test_a_job_at_its_limit_goes_back_into_the_queue_and_on_with_its_run(
    queue: Slurm, hosts: list[Host], tmp_path: Path
) -> None:
    runtime = {"shard_rows": 4, "provider": "cpu", "scorers": 2, "failure_limit": 1.0}
    survey = make_survey(tmp_path / "survey", 3000, runtime=runtime)
    undisturbed = tmp_path / "undisturbed"
    shutil.copytree(survey.parent, undisturbed)
    job = queue.say(
        *("sbatch", "--parsable", "--nodes", "2", "--chdir", tmp_path, "--output", "out"),
        *(SCRIPT, survey),
    )
    out = tmp_path / "out"
    scored = survey.parent / "run" / "scores"
    wait_until(
        lambda: scored.is_dir() and any(scored.iterdir()),
        "not scoring",
        lambda: queue.state(job) in ("PENDING", "RUNNING"),
    )
    token = tmp_path / f".lenspipe-{job}" / "token"
    assert (token.stat().st_mode & 0o777, len(token.read_text("utf-8"))) == (0o600, 64)
    # What Slurm does for --signal, minutes before the limit.
    queue.say("scancel", "--batch", "--signal", "USR1", job)
    queue.wait_for(job, "PENDING")
    first = out.read_text("utf-8")
    assert "terminated: the same command resumes" in first
    assert "the job goes back into the queue" in first
    assert not token.parent.exists()
    assert not (survey.parent / "run" / "lock.json").exists()
    for host in hosts:
        assert not host.processes(f"{TMP}/lenspipe-{job}-"), host.name

    queue.say("scontrol", "update", f"JobId={job}", "StartTime=now")
    assert queue.wait_for(job, "COMPLETED", "FAILED", "NODE_FAIL") == "COMPLETED"
    second = out.read_text("utf-8")[len(first) :]
    assert '"event": "resumed"' in second or '"done_rows": 0' not in second
    with JobProcess(undisturbed / survey.name) as alone:
        assert alone.wait() == 0, alone.lines()
    assert_same(survey.parent / "run", undisturbed / "run")
    assert not list(TMP.glob(f"lenspipe-{job}-*"))
