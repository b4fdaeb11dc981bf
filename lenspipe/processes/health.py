"""Whether a container is well: `python -m lenspipe.processes.health`, HEALTHCHECK of the images.

A service is well while it answers. Whatever else a container runs is well while it lives: how it
ended is its exit status, and a run that stands still is for the alerts to tell.
"""

from __future__ import annotations

import sys
import urllib.request
from collections.abc import Sequence
from pathlib import PurePath

import psutil
from typer.main import get_command

_FIRST = 1  # the process that the container was started for, or an init that was given its words
_TIMEOUT_S = 8.0
_EVERY_ADDRESS = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - what a service may listen on


def served_url(words: Sequence[str]) -> str | None:
    """Where a process started by these words serves a run; None where it does not."""
    from lenspipe.cli import app

    names = [PurePath(word).name for word in words]
    for place, pair in enumerate(zip(names, words[1:], strict=False)):
        if pair == ("lenspipe", "serve"):
            serve = get_command(app).commands["serve"]  # type: ignore[attr-defined]  # a group
            given = list(words[place + 2 :])
            options = serve.make_context("serve", given, resilient_parsing=True).params
            host = _EVERY_ADDRESS.get(options["host"], options["host"])
            return f"http://{f'[{host}]' if ':' in host else host}:{options['port']}/healthz"
    return None


def answers(url: str) -> bool:
    """Whether it says 200 in time. No proxy is asked: it is this container's own address."""
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with direct.open(url, timeout=_TIMEOUT_S) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False


def healthy(pid: int = _FIRST) -> bool:
    """Whether what process `pid` runs is well."""
    try:
        url = served_url(psutil.Process(pid).cmdline())
    except psutil.NoSuchProcess:
        return False
    return url is None or answers(url)


if __name__ == "__main__":
    sys.exit(0 if healthy() else 1)
