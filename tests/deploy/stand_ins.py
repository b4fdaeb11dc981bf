"""Programs on a PATH of their own that note how they are called, and end as they are told."""

from __future__ import annotations

import os
from pathlib import Path

NEVER = "never"  # ends at SIGTERM, with status 143, and notes that; not before a minute else
_PROGRAM = """#!/bin/bash
trap 'echo SIGTERM >>"$0.calls"; exit 143' TERM
echo "$*" >>"$0.calls"
end=$(sed -n "$(grep --invert-match --count SIGTERM "$0.calls")p" "$0.ends")
if [ "$end" = never ]; then
    for _ in {1..1200}; do /bin/sleep 0.05; done
fi
exit "${end:-0}"
"""


class StandIns:
    """Programs in a folder, which `path` puts before all others."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.path = f"{folder}:{os.environ['PATH']}"
        folder.mkdir()

    def add(self, name: str, *ends: int | str) -> None:
        """One that ends with these exit statuses, call by call, and with 0 afterwards."""
        (self.folder / f"{name}.ends").write_text("".join(f"{end}\n" for end in ends), "utf-8")
        self.write(name, _PROGRAM)

    def write(self, name: str, text: str) -> None:
        """One that does what its text says; lines that it adds to `$0.calls` are its calls."""
        program = self.folder / name
        program.write_text(text, "utf-8")
        program.chmod(0o755)

    def calls(self, name: str) -> list[str]:
        """The words of each call so far, and the signals that were heard."""
        told = self.folder / f"{name}.calls"
        return told.read_text("utf-8").splitlines() if told.exists() else []
