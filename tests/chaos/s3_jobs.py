"""A process that runs survey jobs one after the other on one Ray, as its standard input tells it.

Ray takes seconds to start and its workers keep the environment that it was started with, so jobs
against an object store share a process of their own. Each line of input is a JSON object with
`survey` and options of `run_survey`; each line of output says how that job ended.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

RESTS = "LENSPIPE_TEST_REST_S"  # seconds that the driver rests where storage refuses


@dataclass(frozen=True)
class Ended:
    """How a job ended. error: the class of what it raised, empty where it went well."""

    error: str
    line: str
    funnel: dict[str, Any]


@dataclass(frozen=True)
class Jobs:
    """The process, for a test."""

    process: subprocess.Popen[str]
    errors: Path

    def run(self, survey: Path, **options: Any) -> Ended:
        """Run a survey there."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps({"survey": str(survey), **options}) + "\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError(f"the process ended: {self.errors.read_text()[-2000:]}")
        return Ended(**json.loads(line))


@contextmanager
def jobs(folder: Path, environment: dict[str, str]) -> Iterator[Jobs]:
    """The process with these variables besides its own; it ends with the block."""
    errors = folder / "jobs.log"
    with (
        errors.open("w") as log,
        subprocess.Popen(
            [sys.executable, "-m", "tests.chaos.s3_jobs"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
            env={**os.environ, **environment},
            cwd=Path(__file__).parents[2],
        ) as process,
    ):
        try:
            yield Jobs(process, errors)
        finally:
            if process.stdin is not None:
                process.stdin.close()  # it ends Ray and itself
            try:
                process.wait(timeout=30)
            except subprocess.TimeoutExpired:
                process.kill()


def _run(asked: dict[str, Any]) -> Ended:
    from lenspipe.config import load_survey
    from lenspipe.job import run_survey
    from lenspipe.metrics import RunMetrics
    from lenspipe.telling.events import Events
    from lenspipe.telling.progress import make_progress

    survey = load_survey(asked.pop("survey"))
    try:
        with make_progress() as progress:
            info = run_survey(survey, Events(RunMetrics(survey.name), progress), **asked)
    except Exception as error:  # whatever it is, the test is to see it
        traceback.print_exc()
        return Ended(type(error).__name__, str(error), {})
    return Ended("", "", info.funnel.model_dump(mode="json"))


def main() -> None:
    """Run what standard input asks for."""
    from lenspipe import runtime
    from lenspipe.storage import patience

    rest = float(os.environ.get(RESTS, "1"))
    modules: list[Any] = [patience, runtime]
    for module in modules:
        module.rest_s = lambda refusals: rest * 1.5 ** (refusals - 1)
    with runtime.connect(cpus=2):
        for line in sys.stdin:
            ended = _run(json.loads(line))
            print(json.dumps(ended.__dict__), flush=True)  # noqa: T201  # the answer


if __name__ == "__main__":
    main()
