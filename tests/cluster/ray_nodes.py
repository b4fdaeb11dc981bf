"""A Ray cluster over the hosts of a lab, and `lenspipe run` on its head."""

from __future__ import annotations

import json
import os
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from tests.cluster.hosts import Host, lab

ROOT = Path(__file__).parents[2]
RAY = (sys.executable, "-m", "ray.scripts.scripts")
PATIENCE_S = 240.0
_STARTS = 5
_STORE_BYTES = 100_000_000
# Ray gives a node up after five questions in a row, each of two seconds, that it did not answer; a
# node whose control server does not answer for fifteen seconds ends.
_IMPATIENT = {
    "RAY_health_check_initial_delay_ms": "1000",
    "RAY_health_check_period_ms": "1000",
    "RAY_health_check_timeout_ms": "2000",
    "RAY_health_check_failure_threshold": "5",
    "RAY_gcs_rpc_server_reconnect_timeout_s": "15",
}
# A node that ends, as one does that the others gave up, is started again: what a supervisor does.
_FOR_EVER = 'while true; do "$@"; sleep 1; done'


@dataclass
class Cluster:
    """A head without slots of its own and two workers of one CPU each, with one token."""

    folder: Path
    head: Host
    workers: tuple[Host, Host]
    environment: dict[str, str]

    @property
    def address(self) -> str:
        """Of the head, for nodes and drivers."""
        return f"{self.head.address}:6379"

    def start_head(self) -> None:
        """Start Ray on the head; its servers have a few seconds for it, which a busy machine may
        well take."""
        words = (
            "start",
            "--head",
            "--port",
            "6379",
            "--num-cpus",
            "0",
            "--include-dashboard=false",
        )
        for attempt in range(1, _STARTS + 1):
            try:
                self.head.run(
                    *(*RAY, *words, "--include-dashboard=false", *self._common(self.head)),
                    environment=self._environment(self.head),
                    seconds=150.0,
                )
            except (AssertionError, subprocess.TimeoutExpired):
                self.end_ray(self.head)
                if attempt == _STARTS:
                    raise
            else:
                return

    def start_worker(self, host: Host) -> None:
        """Start Ray on a worker, again whenever it ends, and wait for the first time: nodes that
        start together may all take longer than Ray allows."""
        words = ("start", "--address", self.address, "--num-cpus", "1", "--block")
        told = self.folder / f"{host.name}.log"
        with told.open("ab") as log:
            host.start(
                *("bash", "-c", _FOR_EVER, "bash", *RAY, *words, *self._common(host)),
                log=log,
                environment=self._environment(host),
            )
        wait_until(lambda: "Ray runtime started" in told.read_text("utf-8"), "starting a worker")

    def end_ray(self, host: Host) -> None:
        """Kill all of Ray on a host."""
        for process in host.processes(str(self.folder / host.name)):
            process.kill()

    def run(self, survey: Path) -> Driver:
        """`lenspipe run` on the head."""
        log = survey.parent / "log"
        with log.open("ab") as file:
            process = self.head.start(
                *(sys.executable, "-m", "lenspipe", "run", survey),
                *("--address", self.address, "--max-cpus", "2"),
                log=file,
                environment=self._environment(self.head),
            )
        return Driver(process, log)

    def _common(self, host: Host) -> tuple[str, ...]:
        folder = self.folder / host.name
        folder.mkdir(exist_ok=True)
        return (
            *("--node-ip-address", host.address, "--temp-dir", str(folder / "ray")),
            *("--object-store-memory", str(_STORE_BYTES), "--include-log-monitor=false"),
        )

    def _environment(self, host: Host) -> dict[str, str]:
        return {**self.environment, "RAY_TMPDIR": str(self.folder / host.name)}


@dataclass(frozen=True)
class Driver:
    """A `lenspipe run` that was started, and the file that it writes into."""

    process: subprocess.Popen[bytes]
    log: Path

    def lines(self) -> list[str]:
        """Whole lines so far."""
        text = self.log.read_text(encoding="utf-8")
        return text[: text.rfind("\n") + 1].splitlines()

    def events(self, name: str) -> list[dict[str, Any]]:
        """What it told under that name so far."""
        told = [json.loads(line) for line in self.lines() if line.startswith("{")]
        return [event for event in told if event["event"] == name]

    def wait_until_scoring(self) -> None:
        """Until the first shards are scored and committed."""
        self.wait_until(
            lambda: any(e["stage"] == "score" for e in self.events("shard_committed")), "to score"
        )

    def wait_until(self, done: Callable[[], object], what: str) -> None:
        """Until something came to be while it runs."""
        wait_until(done, what, lambda: self.process.poll() is None)

    def wait(self) -> int:
        """Its exit status."""
        return self.process.wait(PATIENCE_S)


def wait_until(
    done: Callable[[], object], what: str, alive: Callable[[], bool] = lambda: True
) -> None:
    """Until something came to be; AssertionError after `PATIENCE_S`, or where nothing lives on."""
    deadline = time.monotonic() + PATIENCE_S
    while not done():
        assert alive(), f"ended and was still {what}"
        assert time.monotonic() < deadline, f"still {what}"
        time.sleep(0.05)


def actors(host: Host) -> list[psutil.Process]:
    """Processes of a host that select or score."""
    return host.processes("ray::_Host")


@contextmanager
def stopped(host: Host) -> Iterator[None]:
    """The actors of a host stand still meanwhile, each with what it holds."""
    still = actors(host)
    assert still
    for process in still:
        process.send_signal(signal.SIGSTOP)
    try:
        yield
    finally:
        for process in still:
            if process.is_running():
                process.send_signal(signal.SIGCONT)


@contextmanager
def cluster() -> Iterator[Cluster]:
    """Three hosts with Ray on them, until the end of the block."""
    # Sockets of Ray bear no long path, so its folders are not in pytest's.
    folder = Path(tempfile.mkdtemp(prefix="lp-", dir="/tmp"))
    kept = {k: v for k, v in os.environ.items() if not k.startswith("RAY_")}
    environment = {
        **kept,
        **_IMPATIENT,
        "PYTHONPATH": str(ROOT),
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": secrets.token_hex(32),
        "RAY_USAGE_STATS_ENABLED": "0",
    }
    try:
        with lab(["head", "one", "two"], folder) as (head, one, two):
            made = Cluster(folder, head, (one, two), environment)
            made.start_head()
            for worker in made.workers:
                made.start_worker(worker)
            yield made
    finally:
        shutil.rmtree(folder, ignore_errors=True)
