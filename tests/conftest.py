"""Fixtures that every test may use."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from lenspipe.processes.slots import Machine
from lenspipe.runtime import connect

DATA = Path(__file__).parents[2] / "shared" / "data"


def pytest_configure() -> None:
    """A shell's background jobs ignore interrupts, and so would every process of a test."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:  # as under nohup
        signal.signal(signal.SIGHUP, signal.SIG_DFL)


@pytest.fixture(scope="session")
def ray_cluster() -> Iterator[Machine]:
    """One Ray for the whole test session; a job that connects meets it and leaves it running."""
    with connect(cpus=2) as machine:
        yield machine


@pytest.fixture(scope="session")
def data() -> Path:
    """The folder of real survey data; the test skips where it is absent."""
    if not DATA.is_dir():
        pytest.skip("real survey data (../shared/data) is not here")
    return DATA
