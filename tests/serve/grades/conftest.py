"""Places for grades: a SQLite file, and a PostgreSQL server of the tests' own."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from lenspipe.errors import StoppedError
from lenspipe.serve.grades.store import open_store
from tests.tools import require_tool


@pytest.fixture(scope="session")
def postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """URL of a server of this test's own, on a socket in its folder."""
    pytest.importorskip("psycopg")
    initdb, server = _program("initdb"), _program("postgres")
    folder = tmp_path_factory.mktemp("pg", numbered=True)
    # The server refuses to run as root; whoever it runs as must reach its folder.
    user = "nobody" if os.geteuid() == 0 else None
    place = Path("/tmp") / f"lenspipe-pg-{os.getpid()}"  # noqa: S108  # a socket's path is short
    place.mkdir(mode=0o700)
    if user:
        shutil.chown(place, user)
    data = place / "data"
    subprocess.run(
        [initdb, "-D", data, "-U", "postgres", "-A", "trust", "--no-sync"],
        user=user, cwd=place, check=True, capture_output=True,
    )  # fmt: skip
    with (folder / "log").open("wb") as log:
        running = subprocess.Popen(
            [server, "-D", data, "-k", place, "-h", ""],
            user=user, cwd=place, stdout=log, stderr=log,
        )  # fmt: skip
        try:
            url = f"postgresql://postgres@/postgres?host={place}"
            _wait_for(lambda: open_store(url).close())
            yield url
        finally:
            running.send_signal(signal.SIGINT)
            running.wait(20)
            shutil.rmtree(place)


def _program(name: str) -> Path:
    """Debian keeps PostgreSQL's programs off the PATH, by version."""
    there = sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"))
    return there[-1] if there else Path(require_tool(name))


def _wait_for(attempt: Callable[[], None]) -> None:
    end = time.monotonic() + 20
    while True:
        try:
            attempt()
        except StoppedError:
            if time.monotonic() > end:
                raise
            time.sleep(0.1)
        else:
            return


@pytest.fixture(params=["sqlite", "postgres"])
def where(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A new, empty place for grades."""
    if request.param == "sqlite":
        return str(tmp_path / "grades.sqlite")
    psycopg = pytest.importorskip("psycopg")
    url = str(request.getfixturevalue("postgres"))
    schema = f"s{uuid.uuid4().hex}"
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(f"CREATE SCHEMA {schema}")
    return f"{url}&options=-csearch_path%3D{schema}"
