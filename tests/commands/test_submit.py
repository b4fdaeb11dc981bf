"""`lenspipe submit` as a user calls it, at a stand-in of a cluster's job server."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from ray import _raylet
from typer.testing import CliRunner, Result

from lenspipe.commands.submit import app
from lenspipe.errors import InputError
from tests.job_server import TOKEN, StandIn, stand_in
from tests.test_submit import CONTENT, NAME

LOG = 'Running entrypoint for job x: …\n{"event": "note", "text": "checking"}\nscored  8\n'


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[StandIn]:
    loader = _raylet.AuthenticationTokenLoader.instance()  # type: ignore[attr-defined]
    monkeypatch.setenv("RAY_AUTH_TOKEN", TOKEN)
    loader.reset_cache()
    with stand_in(log=LOG) as server:
        yield server
    monkeypatch.undo()
    loader.reset_cache()


@pytest.fixture
def survey(tmp_path: Path) -> Path:
    path = tmp_path / "survey.yaml"
    path.write_text(yaml.safe_dump(CONTENT, sort_keys=False), "utf-8")
    return path


def call(server: StandIn, survey: Path, *options: str) -> Result:
    done = CliRunner().invoke(app, [str(survey), "--address", server.url, *options])
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    return done


def test_a_job_is_followed_to_its_end(server: StandIn, survey: Path) -> None:
    done = call(server, survey)
    assert (done.exit_code, done.stdout) == (0, "scored  8\n")
    job, note = (json.loads(line) for line in done.stderr.splitlines())
    assert job["text"] == f"job {NAME} on {server.url}"
    assert note["text"] == "checking"


def test_a_job_that_fails_ends_with_its_status_and_its_last_line(
    server: StandIn, survey: Path
) -> None:
    server.log = f"{LOG}error: ensemble: expected …\n"
    server.ends = {"status": "FAILED", "driver_exit_code": 2}
    done = call(server, survey)
    assert (done.exit_code, done.stdout) == (2, "scored  8\n")
    assert done.stderr.splitlines()[-1] == "error: ensemble: expected …"


def test_a_job_that_never_began_says_why(server: StandIn, survey: Path) -> None:
    server.log = ""
    server.ends = {"status": "FAILED", "message": "no\nworker", "driver_exit_code": None}
    done = call(server, survey)
    assert (done.exit_code, done.stdout) == (1, "")
    assert done.stderr.splitlines()[-1] == "no worker"


def test_a_job_that_is_not_followed_is_told_with_what_to_do_next(
    server: StandIn, survey: Path
) -> None:
    done = call(server, survey, "--detach", "--max-gpus", "4", "--retry-failed")
    assert done.exit_code == 0
    told = dict(line.split(None, 1) for line in done.stdout.splitlines())
    assert (told["job"], told["status"]) == (NAME, "lenspipe status s3://bucket/run")
    [body] = server.bodies
    assert body["entrypoint"].endswith(
        " --output s3://bucket/run --address auto --retry-failed --wait 300 --max-gpus 4"
    )
    assert server.jobs[NAME]["status"] == "RUNNING"
    assert call(server, survey, "--stop").stdout == f"job {NAME}: stopped\n"


def test_what_cannot_be_is_refused_before_anything_is_asked(server: StandIn, survey: Path) -> None:
    with pytest.raises(InputError, match=r"^--output: "):
        call(server, survey, "--output", "run")
    with pytest.raises(InputError, match=r"^--address: expected http://HOST:PORT"):
        call(server, survey, "--address", "head:8265")
    assert server.asked == []
