"""Starts processes that store events until they are killed.

`python writer.py STORE`: for each line `NAME FILE` on its input it prints the process id of a new
process, which stores events as NAME, and writes a line to FILE for each one that was acknowledged.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from lenspipe.serve.grades.event import NewEvent
from lenspipe.serve.grades.store import open_store


def write(where: str, name: str, out: Path) -> None:
    """Store one event after the other."""
    store = open_store(where)
    with out.open("w") as file:
        for k in range(1_000_000):
            store.append(NewEvent(f"{name}-{k}", name, "grade", k % 50, "ABCX"[k % 4]))
            file.write(f"{k}\n")
            file.flush()


def main(where: str) -> None:
    """Start a process for each line."""
    for line in sys.stdin:
        name, out = line.split()
        child = os.fork()
        if not child:
            write(where, name, Path(out))
        sys.stdout.write(f"{child}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main(*sys.argv[1:])
