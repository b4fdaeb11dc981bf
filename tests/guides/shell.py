"""Runs a block of commands as a reader would, in a scene."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path

import pytest

from tests.guides.pages import Block

LONGEST_S = 170.0
_BASH = ("bash", "-eu", "-o", "pipefail")


def free_port() -> int:
    """One that nothing listens at."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def run(block: Block, folder: Path, environment: Mapping[str, str], port: int) -> str:
    """What it prints; AssertionError with all of it where a command fails. What serves is waited
    for until it listens at the port, and then ended."""
    with tempfile.TemporaryFile("w+") as told:
        # A session of its own, so that what the block started can be ended with it.
        process = subprocess.Popen(
            [*_BASH, "-c", block.text],
            cwd=folder,
            env=dict(environment),
            stdin=subprocess.DEVNULL,
            stdout=told,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            listens = _waited(process, port if block.waits else None)
        finally:
            _end(process)
        told.seek(0)
        text = told.read()
    if block.waits:
        assert listens, f"{block} does not serve\n{text}"
    else:
        assert process.returncode == 0, f"{block} ended with {process.returncode}\n{text}"
    return text


def _waited(process: subprocess.Popen[bytes], port: int | None) -> bool:
    """Until it ends, or until it listens at the port: whether it does."""
    deadline = time.monotonic() + LONGEST_S
    while process.poll() is None:
        if port is not None and _listens(port):
            return True
        if time.monotonic() > deadline:
            pytest.fail(f"took longer than {LONGEST_S:g} s")
        time.sleep(0.05)
    return False


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def _end(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGTERM)
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
