"""A survey as a job: what travels, that it is begun once, and that its log is whole."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import os
import re
import subprocess
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import pytest
import yaml
from ray import _raylet

from lenspipe import submit
from lenspipe.errors import InputError, StoppedError
from lenspipe.processes.job_server import JobInfo, JobServer
from lenspipe.submit import Order, exit_status, read_order
from tests.job_server import TOKEN, StandIn, stand_in
from tests.ray_variables import HOSTILE, as_ray_sets_them

T = TypeVar("T")
ORDER = Order("toy", "name: toy\n", "s3://bucket/run", ("--wait", "300"))
NAME = f"{ORDER.prefix}1"
CONTENT: dict[str, Any] = {
    "name": "toy",
    "sources": {"path": "s3://bucket/catalogue/"},
    "cutouts": {"reader": "hdf5", "path": "/data/a.h5", "bands": ["g"], "row": "row"},
    "ensemble": "ps1-gri",
    "candidates": {"top": 1},
    "output": "s3://bucket/run",
}


class Log:
    def __init__(self) -> None:
        self.text = ""
        self.messages: list[str] = []

    def feed(self, text: str) -> None:
        self.text += text

    def message(self, text: str) -> None:
        self.messages.append(text)


@pytest.fixture(autouse=True)
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(submit, "_FIRST_REST_S", 0.01)
    monkeypatch.setattr(submit, "_STOP_LOOK_S", 0.01)


@pytest.fixture
def no_token(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Any]:
    """No token anywhere; Ray keeps the one that it found until it is told to forget it."""
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"):
        monkeypatch.delenv(name, raising=False)
    untyped: Any = _raylet
    loader = untyped.AuthenticationTokenLoader.instance()
    loader.reset_cache()
    yield loader
    monkeypatch.undo()
    loader.reset_cache()


@pytest.fixture
def token(no_token: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_AUTH_TOKEN", TOKEN)


@pytest.fixture
def server(token: None) -> Iterator[StandIn]:
    with stand_in() as server:
        yield server


def ask(server: StandIn, call: Callable[[JobServer], Awaitable[T]], allow_open: bool = False) -> T:
    async def run() -> T:
        async with JobServer(server.url) as jobs:
            await submit.introduce(jobs, allow_open)
            return await call(jobs)

    return asyncio.run(run())


def begun(server: StandIn, order: Order = ORDER) -> str:
    return ask(server, lambda jobs: submit.begin(jobs, order, lambda _line: None))


def followed(server: StandIn, log: Log, name: str = NAME, patience_s: float = 5.0) -> JobInfo:
    return ask(server, lambda jobs: submit.follow(jobs, name, log, patience_s))


def written(folder: Path, **blocks: Any) -> Path:
    path = folder / "survey.yaml"
    path.write_text(yaml.safe_dump({**CONTENT, **blocks}, sort_keys=False), "utf-8")
    return path


# What travels


def test_only_the_survey_file_travels(
    tmp_path: Path, server: StandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "a-secret-of-this-machine")
    (tmp_path / "notes.txt").write_text("beside the survey file")
    file = written(tmp_path)
    begun(server, read_order(file, None, ("--fresh",)))
    [body] = server.bodies
    text = file.read_bytes()
    assert body["runtime_env"] == {
        "env_vars": {
            "LENSPIPE_SURVEY": base64.b64encode(text).decode(),
            "LENSPIPE_SURVEY_SHA256": hashlib.sha256(text).hexdigest(),
            "RAY_JOB_STOP_WAIT_TIME_S": "30",
        }
    }
    sent = json.dumps(body)
    assert "secret" not in sent
    assert TOKEN not in sent
    assert "notes" not in sent
    assert set(body) == {"submission_id", "entrypoint", "runtime_env", "metadata"}


def run_by_the_heads_shell(
    order: Order, variables: dict[str, str], folder: Path
) -> subprocess.CompletedProcess[str]:
    """Of a `lenspipe` that keeps what it is told in `survey` and `words`."""
    stand_in = folder / "bin" / "lenspipe"
    stand_in.parent.mkdir()
    stand_in.write_text('#!/bin/sh\ncat "$2" > $SAID/survey\nprintf "%s\\n" "$@" > $SAID/words\n')
    stand_in.chmod(0o755)
    path = f"{stand_in.parent}:{os.environ['PATH']}"
    own = {"PATH": path, "SAID": str(folder), "TMPDIR": str(folder)}
    return subprocess.run(
        ["sh", "-c", order.entrypoint],
        check=False,
        capture_output=True,
        text=True,
        env={**as_ray_sets_them(variables), **own},
    )


def test_the_heads_shell_runs_the_survey_file_that_was_sent(tmp_path: Path) -> None:
    """Ray would put the head's own variables into it, and take out those that it does not know."""
    order = Order("toy", HOSTILE, "/data/a run", ("--fresh",))
    done = run_by_the_heads_shell(order, order.variables, tmp_path)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert (tmp_path / "survey").read_bytes() == HOSTILE.encode()
    words = (tmp_path / "words").read_text().splitlines()
    assert words[0] == "run"
    assert words[2:] == ["--output", "/data/a run", "--address", "auto", "--fresh"]


@pytest.mark.parametrize("arrives", ["", base64.b64encode(b"name: other\n").decode(), "!"])
def test_another_survey_file_than_was_sent_is_not_run(arrives: str, tmp_path: Path) -> None:
    variables = {**ORDER.variables, "LENSPIPE_SURVEY": arrives}
    assert run_by_the_heads_shell(ORDER, variables, tmp_path).returncode == 1
    assert not (tmp_path / "words").exists()


def test_the_chart_runs_it_by_the_same_line() -> None:
    chart = Path(__file__).parents[1] / "helm/lenspipe/templates/_helpers.tpl"
    assert f"\n{submit.ENTRYPOINT} {{{{" in chart.read_text("utf-8")


def test_the_chart_takes_as_long_a_survey_file() -> None:
    checks = Path(__file__).parents[1] / "helm/lenspipe/templates/_checks.tpl"
    limit = f"if gt (len $values.survey) {submit.MOST_BYTES} -"
    assert limit in checks.read_text("utf-8")


@pytest.mark.parametrize(
    ("blocks", "field"),
    [
        ({"sources": {"path": "catalogue/"}}, "sources.path"),
        ({"sources": {"path": ["/data/a", "b"]}}, "sources.path"),
        ({"cutouts": {**CONTENT["cutouts"], "path": "a.h5"}}, "cutouts.path"),
        ({"cutouts": {"reader": "coadd", "tiles": "t/*", "bands": {"g": "g"}}}, "cutouts.tiles"),
        ({"ensemble": "models/mine.yaml"}, "ensemble"),
        ({"photometry": {"model": "m.onnx", "keep": {"fraction": 0.1}}}, "photometry.model"),
        ({"known_lenses": {"path": "lenses.csv"}}, "known_lenses.path"),
        ({"output": "run/"}, "output"),
    ],
)
def test_paths_that_mean_something_here_alone_are_refused(
    tmp_path: Path, blocks: dict[str, Any], field: str
) -> None:
    with pytest.raises(InputError) as refused:
        read_order(written(tmp_path, **blocks))
    assert str(refused.value).startswith(f"{field}: expected an absolute path or a URL")


def test_an_output_of_the_command_line_takes_the_place_of_the_files(tmp_path: Path) -> None:
    assert read_order(written(tmp_path, output="run/"), "/shared/run").output == "/shared/run"
    with pytest.raises(InputError, match=r"^--output: expected an absolute path"):
        read_order(written(tmp_path), "run")


def test_credentials_in_the_survey_file_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "a-secret-of-this-machine")
    for found in ("a-secret-of-this-machine", "s3://me:password@bucket/x"):
        file = written(tmp_path)
        file.write_text(f"{file.read_text()}# {found}\n")
        with pytest.raises(InputError, match="no credentials") as refused:
            read_order(file)
        assert found not in str(refused.value)


def of_bytes(size: int, folder: Path) -> Path:
    """A survey file of that many bytes, of letters of two each."""
    file = written(folder)
    left = size - file.stat().st_size
    file.write_text(f"{file.read_text()}# {'é' * ((left - 3) // 2)}{' ' * ((left - 3) % 2)}\n")
    assert file.stat().st_size == size
    return file


def test_a_survey_file_that_no_variable_holds_is_refused(tmp_path: Path) -> None:
    most = submit.MOST_BYTES
    with pytest.raises(InputError, match=r"expected at most 90,000 bytes .*, found 90,001"):
        read_order(of_bytes(most + 1, tmp_path))


def test_the_longest_survey_file_goes_into_one_variable(tmp_path: Path) -> None:
    """Of Linux, 128 KiB with its name; Ray hands over all that a job has as one."""
    order = read_order(of_bytes(submit.MOST_BYTES, tmp_path))
    given = {"runtime_env": {"env_vars": order.variables}, "metadata": {"output": "x" * 4096}}
    whole = f"RAY_JOB_CONFIG_JSON_ENV_VAR={json.dumps(given)}"
    assert len(whole) < 128 * 1024 - 4096
    name, _, value = whole.partition("=")
    subprocess.run(["/bin/true"], check=True, env={name: value})


# Tokens


@pytest.mark.usefixtures("no_token")
@pytest.mark.parametrize("how", ["RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH", "home"])
def test_a_token_is_taken_from_where_ray_takes_it(
    how: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / ".ray" / "auth_token"
    file.parent.mkdir()
    file.write_text(f"{TOKEN}\n")
    if how != "home":
        file = file.rename(tmp_path / "elsewhere")
        monkeypatch.setenv(how, TOKEN if how == "RAY_AUTH_TOKEN" else str(file))
    with stand_in() as server:
        begun(server)
    assert len(server.bodies) == 1
    assert set(server.headers[1:]) == {f"Bearer {TOKEN}"}


@pytest.mark.usefixtures("no_token")
def test_a_missing_and_a_wrong_token_are_the_users_mistake(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, no_token: Any
) -> None:
    with stand_in() as server:
        with pytest.raises(InputError, match=r"^RAY_AUTH_TOKEN: .* found none"):
            begun(server)
        monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(tmp_path / "nothing"))
        with pytest.raises(InputError, match=r"^RAY_AUTH_TOKEN: expected the cluster's token"):
            begun(server)
        monkeypatch.delenv("RAY_AUTH_TOKEN_PATH")
        monkeypatch.setenv("RAY_AUTH_TOKEN", "of-another-cluster")
        no_token.reset_cache()
        with pytest.raises(InputError, match=r"^RAY_AUTH_TOKEN: .* found another") as refused:
            begun(server)
        assert "of-another-cluster" not in str(refused.value)
        assert server.bodies == []


@pytest.mark.usefixtures("token")
def test_an_open_cluster_is_refused_unless_asked_for_and_is_told_no_token() -> None:
    with stand_in(mode="disabled") as server:
        with pytest.raises(InputError, match=r"^--address: .*RAY_AUTH_MODE=token"):
            begun(server)
        assert server.bodies == []
        order, silent = ORDER, lambda _line: None
        ask(server, lambda jobs: submit.begin(jobs, order, silent), allow_open=True)
        assert len(server.bodies) == 1
        assert set(server.headers) == {None}


@pytest.mark.parametrize(
    "address", ["head:8265", "ray://head:10001", "http://", "http://a:b@head:1", "http://head:x"]
)
def test_an_address_that_is_none_is_refused(address: str) -> None:
    with pytest.raises(InputError):
        submit.check_url(address)


# Begun once


def test_a_submission_whose_answer_is_lost_makes_one_job(server: StandIn) -> None:
    server.unanswered = 2
    assert begun(server) == NAME
    assert [body["submission_id"] for body in server.bodies] == [NAME]
    assert [path for method, path in server.asked if method == "POST"] == ["/api/jobs/"] * 2


def test_the_same_command_finds_the_job_that_is_under_way(server: StandIn) -> None:
    assert (begun(server), begun(server)) == (NAME, NAME)
    assert len(server.bodies) == 1


@pytest.mark.parametrize("ended", ["SUCCEEDED", "FAILED", "STOPPED"])
def test_the_same_command_begins_another_after_one_that_is_over(
    server: StandIn, ended: str
) -> None:
    server.add(f"{ORDER.prefix}9", ended)
    server.add(f"{ORDER.prefix}10", ended)
    server.add(f"{ORDER.prefix}x", "RUNNING")
    assert begun(server) == f"{ORDER.prefix}11"


def test_another_survey_file_is_refused_while_a_job_writes_there(server: StandIn) -> None:
    begun(server)
    with pytest.raises(InputError, match=f"^survey file: expected that of job {NAME}"):
        begun(server, Order("toy", "name: toy # another\n", ORDER.output))
    assert begun(server, Order("toy", "name: toy # another\n", "s3://bucket/other")) != NAME


@pytest.mark.parametrize("option", ["--fresh", "--retry-failed"])
def test_a_job_under_way_is_not_begun_anew(server: StandIn, option: str) -> None:
    begun(server)
    with pytest.raises(InputError, match=f"^{option}: expected no job"):
        begun(server, Order(ORDER.name, ORDER.text, ORDER.output, (option,)))


# Followed


LINES = "".join(f"line {k} größer\n" for k in range(40))


@pytest.mark.parametrize("cuts", [[], [0], [7, 3, 100, 101], [len(LINES)]])
def test_a_log_is_whole_however_often_its_stream_is_cut(server: StandIn, cuts: list[int]) -> None:
    server.add(NAME, "RUNNING", LINES)
    server.cuts = list(cuts)
    log = Log()
    job = followed(server, log)
    assert log.text == LINES
    assert (job.status, exit_status(job)) == ("SUCCEEDED", 0)


def test_a_stream_that_was_cut_when_the_job_ended_is_read_to_its_end(server: StandIn) -> None:
    server.add(NAME, "FAILED", LINES, driver_exit_code=3)
    server.cuts = [20]
    log = Log()
    assert exit_status(followed(server, log)) == 3
    assert log.text == LINES


def test_a_job_that_the_cluster_has_forgotten_is_told(server: StandIn) -> None:
    with pytest.raises(StoppedError, match=r"knows no job .* resumes the run"):
        followed(server, Log())


def test_patience_with_a_server_that_is_gone_has_an_end(server: StandIn) -> None:
    log = Log()

    async def run() -> None:
        async with JobServer("http://127.0.0.1:9") as jobs:
            await submit.follow(jobs, NAME, log, patience_s=0.1)

    with pytest.raises(StoppedError, match="the same command follows it"):
        asyncio.run(run())
    [told] = log.messages
    assert re.match(r"connection lost \(.*\); trying again", told)


@pytest.mark.parametrize(
    ("status", "code", "expected"),
    [
        ("SUCCEEDED", 0, 0),
        ("FAILED", 2, 2),
        ("FAILED", 3, 3),
        ("FAILED", -9, 137),
        ("FAILED", None, 1),
        ("FAILED", 0, 1),
        ("STOPPED", None, 143),
    ],
)
def test_the_exit_status_is_the_jobs(status: str, code: int | None, expected: int) -> None:
    assert exit_status(JobInfo(NAME, status, "", {}, code)) == expected


# Stopped


def test_the_job_under_way_is_stopped(server: StandIn) -> None:
    begun(server)
    silent = lambda _line: None  # noqa: E731
    assert ask(server, lambda jobs: submit.stop(jobs, ORDER, silent)).status == "STOPPED"
    with pytest.raises(InputError, match=r"^--stop: .* none under way"):
        ask(server, lambda jobs: submit.stop(jobs, ORDER, silent))
