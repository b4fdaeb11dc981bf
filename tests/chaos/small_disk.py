"""A job whose disk is small: a program that mounts a tmpfs in its own mount namespace, runs
`lenspipe run` on it, fills the disk when a stage begins, and frees it again.

`unshare --user --map-root-user --mount` makes the namespace without privileges, so that nothing is
seen or left outside of it. What the job wrote is copied to a plain folder at the end.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path

ROOT = Path(__file__).parents[2]
NAMESPACE = ("unshare", "--user", "--map-root-user", "--mount")
BALLAST = "ballast"
FULL = "No space left on device"
# Waits of a tenth: what the run does between them is the same.
RUN = (
    "from lenspipe.storage import patience; "
    "patience.rest_s = lambda refusals: {rest_s} * refusals; "
    "from lenspipe.cli import main; main()"
)


@dataclass(frozen=True)
class Job:
    """One call of the command. full_at: patterns of the event lines at which the disk is filled, in
    their order. free_after_s: so long after it was felt it is freed again; None: not before the
    command ended."""

    full_at: tuple[str, ...] = ()
    free_after_s: float | None = None
    rest_s: float = 0.1


@dataclass(frozen=True)
class Disk:
    """mount: folder that becomes the disk. what: fill it with `bytes` or with `files`. keep: folder
    to which its content is copied at the end."""

    survey: str
    mount: str
    keep: str
    jobs: tuple[Job, ...]
    size: str = "16m"
    files: int = 2000
    what: str = "bytes"
    environment: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Ended:
    """How a command ended, and how often its disk was filled."""

    status: int
    lines: list[str]
    fills: int


def run_on_small_disk(disk: Disk, timeout_s: float = 150.0) -> list[Ended]:
    """Run `disk.jobs` one after the other in a namespace of their own."""
    done = subprocess.run(
        [*NAMESPACE, sys.executable, "-m", "tests.chaos.small_disk", json.dumps(asdict(disk))],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=timeout_s,
    )
    if done.returncode:
        raise RuntimeError(done.stderr[-2000:])
    return [Ended(**ended) for ended in json.loads(done.stdout)]


def can_mount() -> str:
    """Why no tmpfs can be mounted here; empty where it can."""
    try:
        done = subprocess.run(
            [*NAMESPACE, "mount", "-t", "tmpfs", "-o", "size=64k", "none", "/mnt"],
            capture_output=True,
            text=True,
            check=False,
            timeout=20,
        )
    except OSError as error:
        return str(error)
    return done.stderr.strip() if done.returncode else ""


def main() -> None:
    content = json.loads(sys.argv[1])
    disk = Disk(**{**content, "jobs": tuple(Job(**job) for job in content["jobs"])})
    options = f"size={disk.size},nr_inodes={disk.files}"
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "none", disk.mount], check=True)
    ended = [asdict(_run(disk, job)) for job in disk.jobs]
    shutil.copytree(disk.mount, disk.keep)
    sys.stdout.write(json.dumps(ended))


def _run(disk: Disk, job: Job) -> Ended:
    command = [sys.executable, "-c", RUN.format(rest_s=job.rest_s), "run", disk.survey]
    environment = {k: v for k, v in os.environ.items() if not k.startswith("RAY_")}
    with subprocess.Popen(
        command,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        env={**environment, **disk.environment},
    ) as process:
        assert process.stderr is not None
        lines: list[str] = []
        fills, felt = 0, True
        for line in process.stderr:
            lines.append(line.rstrip("\n"))
            if fills < len(job.full_at) and re.search(job.full_at[fills], line):
                _fill(disk)
                fills, felt = fills + 1, False
            elif not felt and FULL in line and job.free_after_s is not None:
                felt = True
                time.sleep(job.free_after_s)
                _free(disk)
        status = process.wait()
    _free(disk)
    return Ended(status, lines, fills)


def _fill(disk: Disk) -> None:
    """Take what is left, until the system itself says that there is no more."""
    for path in _ballast(disk):
        with path.open("wb", buffering=0) as file, suppress(OSError):
            while disk.what == "bytes":
                file.write(bytes(4096))
            if disk.what == "files":
                continue
        return


def _ballast(disk: Disk) -> Iterator[Path]:
    folder = Path(disk.mount, BALLAST)
    with suppress(OSError):
        folder.mkdir(exist_ok=True)
        for index in range(disk.files):
            path = folder / str(index)
            path.touch()
            yield path


def _free(disk: Disk) -> None:
    shutil.rmtree(Path(disk.mount, BALLAST), ignore_errors=True)


if __name__ == "__main__":
    main()
