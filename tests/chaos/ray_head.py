"""A real Ray head with its job server, begun as on a cluster: by `ray start`."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil

from lenspipe.processes.local_ray import end, family

ROOT = Path(__file__).parents[2]
TOKEN = "the-token-of-this-test-and-of-nothing-else-42"  # noqa: S105 - of nothing
_START_S = 300.0  # Ray itself takes 60 s for a fault, which a busy machine may take


@dataclass(frozen=True)
class Head:
    """port: of the job server. environment: for whoever calls lenspipe beside it."""

    port: int
    environment: dict[str, str]

    @property
    def url(self) -> str:
        """Of the job server."""
        return f"http://127.0.0.1:{self.port}"


@contextmanager
def ray_head(token: str | None = TOKEN) -> Iterator[Head]:
    """A head with two CPU slots. token: what its clients must have; None: an open cluster."""
    # Sockets of Ray bear no long path, so its folder is not in pytest's.
    folder = Path(tempfile.mkdtemp(prefix="lp-head-", dir="/tmp"))
    ports = _free_ports(4)
    plain = {k: v for k, v in os.environ.items() if not k.startswith("RAY_")}
    auth = {"RAY_AUTH_MODE": "disabled"}
    if token is not None:
        auth = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": token}
    environment = {
        **plain,
        **auth,
        "HOME": str(folder),
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT),
    }
    options = {
        "node-ip-address": "127.0.0.1",
        "port": ports[0],
        "dashboard-host": "127.0.0.1",
        "dashboard-port": ports[1],
        "ray-client-server-port": ports[2],
        "dashboard-agent-listen-port": ports[3],
        "min-worker-port": 0,  # any that is free; others' clusters are on this machine
        "max-worker-port": 0,
        "num-cpus": 2,
        "object-store-memory": 200_000_000,
        "temp-dir": folder / "ray",
    }
    log = folder / "head.log"
    with log.open("wb") as out, ExitStack() as ending:
        ending.callback(shutil.rmtree, folder, ignore_errors=True)
        process = subprocess.Popen(
            ["ray", "start", "--head", "--block", "--disable-usage-stats"]
            + [f"--{name}={value}" for name, value in options.items()],
            env={**environment, "RAY_DASHBOARD_STARTUP_TIMEOUT_S": str(int(_START_S))},
            stdout=out,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        ending.callback(_end, process)
        head = Head(ports[1], environment)
        _await_start(head, process, log)
        yield head


def _await_start(head: Head, process: subprocess.Popen[bytes], log: Path) -> None:
    until = time.monotonic() + _START_S
    while process.poll() is None and time.monotonic() < until:
        try:
            socket.create_connection(("127.0.0.1", head.port), timeout=5.0).close()
            return
        except OSError:
            time.sleep(0.2)
    raise AssertionError(f"ray start did not come up: {log.read_text()[-2000:]}")


def _end(process: subprocess.Popen[bytes]) -> None:
    started = family([psutil.Process(process.pid)]) if process.poll() is None else []
    end(started)
    psutil.wait_procs(started, timeout=20.0)
    process.wait()


def _free_ports(count: int) -> list[int]:
    """Ports that nobody has now; all are held until the last is known."""
    with ExitStack() as held:
        sockets = [held.enter_context(socket.create_server(("", 0))) for _ in range(count)]
        return [s.getsockname()[1] for s in sockets]
