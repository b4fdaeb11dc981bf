"""`lenspipe run` as a session of processes of its own, watched from outside."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, Self

import psutil

# What a victim is called where it runs; `lenspipe run` itself is the driver.
_TITLES = {
    "actor": "ray::_Host",
    "worker": "ray::_Host.call",
    "feed": "ray::apply_to_item",
    "raylet": "raylet",
    "gcs": "gcs_server",
}
PATIENCE_S = 240.0
RUN = "; from lenspipe.cli import main; main()"


class JobProcess:
    """One life of a run: from the command to its end. A context: whatever is left is killed."""

    def __init__(self, survey: Path, before: str = "", **settings: str) -> None:
        """before: Python that the command's process executes first. settings: of Ray, by
        environment variable."""
        # Sockets of Ray bear no long path, so its folder is not in pytest's.
        self.temporary = Path(tempfile.mkdtemp(prefix="lp-", dir="/tmp"))
        self._log = survey.parent / f"{self.temporary.name}.err"
        self._out = survey.parent / f"{self.temporary.name}.out"
        command = ["-c", before + RUN] if before else ["-m", "lenspipe"]
        environment = {k: v for k, v in os.environ.items() if not k.startswith("RAY_")}
        with self._log.open("wb") as err, self._out.open("wb") as out:
            self.process = subprocess.Popen(
                [sys.executable, *command, "run", str(survey)],
                stdout=out,
                stderr=err,
                env={**environment, "RAY_TMPDIR": str(self.temporary), **settings},
                start_new_session=True,
            )
        self._known: dict[int, psutil.Process] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for process in self.living():
            process.kill()
        self.process.wait()
        shutil.rmtree(self.temporary, ignore_errors=True)

    @property
    def ended(self) -> bool:
        """Whether the driver has."""
        return self.process.poll() is not None

    def lines(self) -> list[str]:
        """Whole lines of standard error so far."""
        text = self._log.read_text(encoding="utf-8")
        return text[: text.rfind("\n") + 1].splitlines()

    def output(self) -> str:
        """Standard output so far."""
        return self._out.read_text(encoding="utf-8")

    def events(self) -> list[dict[str, Any]]:
        """What the run told so far."""
        return [json.loads(line) for line in self.lines() if line.startswith("{")]

    def stage(self) -> str:
        """`open`, `select`, `plan`, `score` or `publish`, by the last event that tells."""
        stage = "open"
        for event in self.events():
            stage = _stage_of(event) or stage
        return stage

    def living(self) -> list[psutil.Process]:
        """The processes of this life that still run: of its session, or known by it once."""
        for process in psutil.process_iter():
            try:
                if os.getsid(process.pid) == self.process.pid:
                    self._known.setdefault(process.pid, process)
            except (ProcessLookupError, PermissionError):
                continue
        return [process for process in self._known.values() if _lives(process)]

    def victims(self, kind: str) -> list[psutil.Process]:
        """Living processes of that kind."""
        if kind == "driver":
            return [psutil.Process(self.process.pid)]
        return [process for process in self.living() if _title(process).startswith(_TITLES[kind])]

    def kill(self, kind: str, number: signal.Signals = signal.SIGKILL) -> int | None:
        """Signal the first living process of that kind, or the whole `group`; its id, if any."""
        if self.ended:
            return None
        self.living()  # so that those that are orphans soon stay known
        if kind == "group":
            os.killpg(self.process.pid, number)
            return self.process.pid
        for victim in self.victims(kind):
            victim.send_signal(number)
            return victim.pid
        return None

    def wait(self, seconds: float = PATIENCE_S) -> int:
        """The driver's exit status."""
        return self.process.wait(seconds)

    def wait_until_gone(self, seconds: float) -> list[str]:
        """What of this life still runs after so many seconds, at the latest."""
        deadline = time.monotonic() + seconds
        while (left := self.living()) and time.monotonic() < deadline:
            time.sleep(0.2)
        return [f"{process.pid} {_title(process)}" for process in left]


def _stage_of(event: dict[str, Any]) -> str | None:
    if event["event"] == "stage_started":
        return str(event["stage"])
    if event["event"] == "note":
        word = str(event["text"]).split()[0].rstrip(":")
        return {"planning": "plan", "publishing": "publish"}.get(word)
    return None


def spans(events: list[dict[str, Any]]) -> dict[str, float]:
    """Seconds that each stage of a run took, from its events."""
    from datetime import datetime

    times: dict[str, tuple[datetime, datetime]] = {}
    stage = "open"
    for event in events:
        at = datetime.fromisoformat(event["time"])
        if stage in times:
            times[stage] = (times[stage][0], at)
        stage = _stage_of(event) or stage
        times.setdefault(stage, (at, at))
    return {name: (last - first).total_seconds() for name, (first, last) in times.items()}


def _title(process: psutil.Process) -> str:
    try:
        words = process.cmdline()
    except psutil.Error:
        return ""
    return Path(words[0]).name if words else ""


def _lives(process: psutil.Process) -> bool:
    try:
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False
