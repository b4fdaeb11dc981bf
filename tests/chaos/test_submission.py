"""Surveys as jobs of a real Ray head: with a token, over lines that are cut, stopped, resumed."""

from __future__ import annotations

import asyncio
import json
import random
import signal
import subprocess
import sys
import time
import uuid
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import pytest
import yaml

from lenspipe.processes.job_server import JobInfo, JobServer
from lenspipe.run.lock import RunLock
from lenspipe.run.status import describe_status
from lenspipe.run.verify import verify
from lenspipe.run_directory import RunDirectory
from lenspipe.storage.store import Store
from lenspipe.submit import MOST_BYTES, read_order, stop
from tests.chaos.ray_head import TOKEN, Head, ray_head
from tests.chaos.tcp_proxy import TcpProxy
from tests.toy_survey import make_survey

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(900)]
PATIENCE_S = 300.0
CUTS = 8
T = TypeVar("T")


@pytest.fixture(scope="module")
def head() -> Iterator[Head]:
    with ray_head() as head:
        yield head


def written(folder: Path, rows: int, **changes: Any) -> Path:
    """A toy survey that says where everything is, as one that is submitted must."""
    file = make_survey(folder, rows, publish={"explain": 0, "mosaic": 4})
    content = yaml.safe_load(file.read_text("utf-8"))
    content["sources"]["path"] = f"{folder}/catalogue"
    content["photometry"]["model"] = f"{folder}/photometry.onnx"
    content["cutouts"]["path"] = f"{folder}/cutouts.h5"
    content["ensemble"] = f"{folder}/toy.yaml"
    content["output"] = f"{folder}/run"
    content["runtime"]["shard_rows"] = 16
    file.write_text(yaml.safe_dump({**content, **changes}, sort_keys=False), "utf-8")
    return file


class Submission:
    """`lenspipe submit` as a process of its own."""

    def __init__(self, head: Head, survey: Path, *options: str, **changed: str) -> None:
        url = "" if "--address" in options else head.url
        self._err = survey.parent / f"err-{uuid.uuid4().hex}"
        with self._err.open("wb") as err:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "lenspipe", "submit", str(survey), *options]
                + (["--address", url] if url else []),
                stdout=subprocess.PIPE,
                stderr=err,
                env={**head.environment, **changed},
                text=True,
            )

    def lines(self) -> list[str]:
        """Whole lines of standard error so far."""
        text = self._err.read_text("utf-8")
        return text[: text.rfind("\n") + 1].splitlines()

    def wait_for(self, word: str) -> None:
        """Until a line has that word in it."""
        until = time.monotonic() + PATIENCE_S
        while not any(word in line for line in self.lines()):
            assert self.process.poll() is None, self.lines()
            assert time.monotonic() < until, self.lines()
            time.sleep(0.05)

    def end(self) -> tuple[int, str]:
        """Exit status and standard output."""
        out, _ = self.process.communicate(timeout=PATIENCE_S)
        return self.process.returncode, out


Submit = Callable[..., Submission]


@pytest.fixture
def submit() -> Iterator[Submit]:
    """Calls the command; none of the calls outlives the test."""
    calls: list[Submission] = []

    def call(head: Head, survey: Path, *options: str, **changed: str) -> Submission:
        calls.append(Submission(head, survey, *options, **changed))
        return calls[-1]

    yield call
    for submission in calls:
        submission.process.kill()
        submission.process.communicate()


def ask(head: Head, call: Callable[[JobServer], Awaitable[T]]) -> T:
    """What the job server answers to whoever has the token."""

    async def run() -> T:
        async with JobServer(head.url) as server:
            server.headers = {"Authorization": f"Bearer {TOKEN}"}
            return await call(server)

    return asyncio.run(run())


def job_of(head: Head, output: Path) -> tuple[list[JobInfo], str]:
    """All jobs that were to write there, the oldest first, and what the last one printed."""

    async def asked(server: JobServer) -> tuple[list[JobInfo], str]:
        jobs = [j for j in await server.jobs() if j.metadata["lenspipe_output"] == str(output)]
        jobs.sort(key=lambda job: int(job.name.rpartition("-")[2]))
        return jobs, await server.log(jobs[-1].name)

    return ask(head, asked)


def status_of(head: Head, output: Path) -> dict[str, str]:
    """What `lenspipe status` says."""
    done = subprocess.run(
        [sys.executable, "-m", "lenspipe", "status", str(output)],
        env=head.environment,
        capture_output=True,
        check=True,
        text=True,
    )
    return dict(line.split(None, 1) for line in done.stdout.splitlines())


def events(lines: list[str]) -> list[str]:
    return [line for line in lines if line.startswith("{")]


def test_a_survey_is_followed_over_a_line_that_is_cut(
    head: Head, submit: Submit, tmp_path: Path
) -> None:
    rng = random.Random(3)
    survey = written(tmp_path, 2000)
    with TcpProxy(("127.0.0.1", head.port)) as line:
        address = f"http://127.0.0.1:{line.port}"
        submission = submit(head, survey, "--address", address)
        submission.wait_for('"text": "job lenspipe-toy-')
        while line.cut_connections < CUTS and submission.process.poll() is None:
            time.sleep(rng.uniform(1.0, 4.0))
            line.cut(down=rng.random() < 0.5)
            time.sleep(0.3)
            line.cut()
        status, out = submission.end()
        assert line.cut_connections >= CUTS
    told = submission.lines()
    assert status == 0, told
    [job], log = job_of(head, tmp_path / "run")
    # Every line of the job once and in order; those of `submit` itself are beside them.
    own = Counter(events(told)) - Counter(events(log.splitlines()))
    assert [line for line in events(told) if line not in own] == events(log.splitlines())
    assert any("connection lost" in line for line in own)
    assert out.splitlines() == [line for line in log.splitlines()[-8:] if line[0] != "{"]
    assert out.startswith("sources ")
    assert TOKEN not in out + "".join(told)
    assert verify(RunDirectory(str(tmp_path / "run"))) == []
    found = status_of(head, tmp_path / "run")
    assert (found["state"], found["job"]) == ("done", job.name)


def test_the_exit_status_and_the_line_of_a_mistake_are_the_jobs(
    head: Head, submit: Submit, tmp_path: Path
) -> None:
    survey = written(tmp_path, 100, sources={"path": str(tmp_path / "nowhere")})
    submission = submit(head, survey)
    status, out = submission.end()
    assert status == 2
    assert out == ""
    last = submission.lines()[-1]
    assert last.startswith("error: sources.path: expected ")
    assert str(tmp_path / "nowhere") in last


def test_a_job_goes_on_when_its_follower_leaves_and_ends_in_order_when_told(
    head: Head, submit: Submit, tmp_path: Path
) -> None:
    survey = written(tmp_path, 2000, runtime={"provider": "cpu", "scorers": 1, "shard_rows": 2})
    other = RunLock(Store(str(tmp_path / "run")))
    other.acquire()  # the job waits for its end
    first = submit(head, survey)
    first.wait_for("its end is waited for")
    first.process.send_signal(signal.SIGINT)
    status, _ = first.end()
    [job], _log = job_of(head, tmp_path / "run")
    assert status == 130
    assert first.lines()[-1].startswith(f"interrupted: job {job.name} goes on: the same command")
    assert not any("Traceback" in line for line in first.lines())
    assert job.status == "RUNNING"

    second = submit(head, survey)
    second.wait_for(f"job {job.name} is under way")
    other.release()
    second.wait_for('"stage": "score"')
    found = dict(describe_status(str(tmp_path / "run")))
    assert found["state"].startswith("running: process ")
    assert found["job"] == job.name
    assert ask(head, lambda server: stop(server, read_order(survey), print)).name == job.name
    status, _ = second.end()
    assert status == 143
    assert second.lines()[-1] == "terminated: the same command resumes"
    assert not (tmp_path / "run" / "lock.json").exists()
    assert status_of(head, tmp_path / "run")["state"].startswith("interrupted: ")

    detached = submit(head, survey, "--detach")
    status, out = detached.end()
    name = job.name.removesuffix("-1") + "-2"
    assert status == 0
    assert out.splitlines()[0].split() == ["job", name]
    third = submit(head, survey)
    assert third.end()[0] == 0, third.lines()
    jobs, log = job_of(head, tmp_path / "run")
    assert [j.name for j in jobs] == [job.name, name]
    assert '"text": "resuming ' in log
    assert verify(RunDirectory(str(tmp_path / "run"))) == []


@pytest.mark.parametrize(
    ("token", "told"),
    [
        ("", "error: RAY_AUTH_TOKEN: expected the cluster's token (or its file in"),
        ("another", "error: RAY_AUTH_TOKEN: expected the cluster's token, found another one"),
    ],
)
def test_without_the_token_nothing_is_begun(
    head: Head, submit: Submit, tmp_path: Path, token: str, told: str
) -> None:
    submission = submit(head, written(tmp_path, 100), RAY_AUTH_TOKEN=token)
    assert submission.end() == (2, "")
    [line] = submission.lines()
    assert line.startswith(told)


def test_an_open_cluster_is_refused_unless_it_is_asked_for(submit: Submit, tmp_path: Path) -> None:
    survey = written(tmp_path, 100, sources={"path": str(tmp_path / "nowhere")})
    with ray_head(token=None) as open_head:
        refused = submit(open_head, survey)
        assert refused.end() == (2, "")
        [line] = refused.lines()
        assert line.startswith("error: --address: expected a cluster with RAY_AUTH_MODE=token")
        taken = submit(open_head, survey, "--allow-open-cluster")
        assert taken.end()[0] == 2
        assert taken.lines()[-1].startswith("error: sources.path: expected ")


def test_the_longest_survey_file_arrives(head: Head, submit: Submit, tmp_path: Path) -> None:
    """Whole: its last line names the model that is asked for, which Ray would change."""
    survey = written(tmp_path, 100)
    content = survey.read_text("utf-8").replace(f"{tmp_path}/toy.yaml", "no-$HOME-${NONE}")
    line = "# größer als 'alles' \\ $HOME\n"
    padding = line * ((MOST_BYTES - len(content.encode())) // len(line.encode()))
    survey.write_text(f"{padding}{content}", "utf-8")
    assert MOST_BYTES - 50 < survey.stat().st_size <= MOST_BYTES
    submission = submit(head, survey)
    assert submission.end()[0] == 2
    *told, last = submission.lines()
    assert all("event" in json.loads(line) for line in told)
    assert last.startswith("error: ensemble: expected a path or one of ")
    assert last.endswith(", found 'no-$HOME-${NONE}'")
