"""What the health check of a container says."""

from __future__ import annotations

import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import psutil
import pytest

from lenspipe.processes.health import healthy, served_url


@pytest.mark.parametrize(
    ("words", "url"),
    [
        ("lenspipe serve RUN", "http://127.0.0.1:8080/healthz"),
        (
            "python /opt/bin/lenspipe serve RUN --host=0.0.0.0 --port 81",
            "http://127.0.0.1:81/healthz",
        ),
        ("/sbin/init -- lenspipe serve s3://b/run --host ::", "http://[::1]:8080/healthz"),
        ("lenspipe serve --host 10.0.0.7 RUN --blind", "http://10.0.0.7:8080/healthz"),
        ("lenspipe run serve", None),
        ("ray start --head --block", None),
        ("", None),
    ],
)
def test_a_service_is_asked_where_it_listens(words: str, url: str | None) -> None:
    assert served_url(words.split()) == url


@contextmanager
def answering(status: int) -> Iterator[int]:
    """A server that gives this status to each request; its port."""

    class Answer(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status if self.path == "/healthz" else 500)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Answer) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server.server_address[1]
        server.shutdown()


@contextmanager
def process(*words: str) -> Iterator[psutil.Process]:
    """A process that does nothing, started by a command line that ends in these words."""
    idle = "import sys; sys.stdin.read()"
    with subprocess.Popen([sys.executable, "-c", idle, *words], stdin=subprocess.PIPE) as started:
        made = psutil.Process(started.pid)
        while not made.cmdline():  # it is empty for a moment while the program begins
            time.sleep(0.001)
        yield made
        started.kill()


@pytest.mark.parametrize(("status", "expected"), [(200, True), (503, False)])
def test_a_service_is_well_while_it_answers(
    status: int, expected: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")  # nobody's: it must not be asked
    with answering(status) as port, process("lenspipe", "serve", "RUN", f"--port={port}") as served:
        assert healthy(served.pid) is expected


def test_a_service_that_listens_no_more_is_not_well() -> None:
    with socket.socket() as nobody:  # the port is taken, so that no other test listens there
        nobody.bind(("127.0.0.1", 0))
        port = nobody.getsockname()[1]
        with process("lenspipe", "serve", "RUN", f"--port={port}") as served:
            assert not healthy(served.pid)


def test_a_job_is_well_while_it_lives() -> None:
    with process("lenspipe", "run", "survey.yaml") as job:
        assert healthy(job.pid)
    assert not healthy(job.pid)
