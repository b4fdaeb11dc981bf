from __future__ import annotations

import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import requests

from lenspipe.errors import InputError
from lenspipe.run_directory import RUN, RunDirectory
from lenspipe.serve.command import Service
from lenspipe.serve.shown import Manner
from tests.serve.running import serving
from tests.serve.test_inspection import make_set


@contextmanager
def started(*arguments: str) -> Iterator[tuple[subprocess.Popen[str], dict[str, str]]]:
    """`lenspipe serve` in a process of its own, and the lines that it printed."""
    process = subprocess.Popen(
        [sys.executable, "-m", "lenspipe", "serve", *arguments],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        assert process.stdout is not None
        lines = {}
        for line in process.stdout:
            name, value = re.split(r"  +", line.strip(), maxsplit=1)
            lines[name] = value
            if name in ("token", "TAP"):
                break
        yield process, lines
    finally:
        process.kill()
        process.communicate()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_the_command_serves_until_it_is_told_to_end(
    run: RunDirectory, number: signal.Signals
) -> None:
    with started(run.url, "--port", "0") as (process, lines):
        assert lines["serving"].startswith("http://127.0.0.1:")
        reply = requests.get(f"{lines['serving']}/api/candidates?limit=1", timeout=30)
        assert reply.json()["rows"][0]["rank"] == 1
        query = {"LANG": "ADQL", "QUERY": "SELECT TOP 1 ra FROM scores", "FORMAT": "csv"}
        assert requests.get(f"{lines['TAP']}/sync", query, timeout=90).status_code == 200
        form = {"Content-Type": "multipart/form-data; boundary=x"}
        broken = requests.post(f"{lines['TAP']}/sync", data=b"junk", headers=form, timeout=30)
        assert broken.status_code == 400
        process.send_signal(number)
        assert process.wait(20) == 0
        assert process.stderr is not None
        assert process.stderr.read() == ""


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--host", "no.such.host.invalid"), "--host: expected"),
        (("--host", "192.0.2.1", "--port", "0"), "--host, --port: expected"),
    ],
)
def test_an_address_that_is_none_is_said(
    run: RunDirectory, arguments: tuple[str, ...], said: str
) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "lenspipe", "serve", run.url, *arguments],
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 2
    assert said in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_a_port_that_is_taken_is_said(run: RunDirectory) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(InputError, match=rf"127\.0\.0\.1:{port}"):
            Service(run.url, "127.0.0.1", port)


def test_a_run_without_a_catalogue_is_said(tmp_path: Path) -> None:
    run = RunDirectory(str(tmp_path))
    run.write_json(RUN, {"state": "running"})
    with pytest.raises(InputError, match="a finished run"):
        Service(run.url, port=0)


def test_beyond_loopback_the_token_is_told_and_needed(run: RunDirectory) -> None:
    with serving(run.url, host="0.0.0.0") as service:
        told = dict(service.describe())
        url = f"http://127.0.0.1:{service.port}/api/run"
        assert requests.get(url, timeout=30).status_code == 401
        headers = {"Authorization": f"Bearer {told['token']}"}
        assert requests.get(url, headers=headers, timeout=30).status_code == 200


@pytest.mark.parametrize(
    ("rate", "said"), [(0.05, None), (0.5, "30 are 43% of what is shown; 50% would take 40")]
)
def test_too_few_training_images_are_said(
    run: RunDirectory, tmp_path: Path, rate: float, said: str | None
) -> None:
    images = make_set(tmp_path / "set.h5", count=30)
    manner = Manner(blind=True, hidden_rate=rate)
    grades = str(tmp_path / "grades.sqlite")
    service = Service(run.url, port=0, grades=grades, manner=manner, training_images=images)
    service.socket.close()
    assert dict(service.describe()).get("training images") == said
