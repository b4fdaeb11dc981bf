"""Runs of finished examples beside the set they belong to: what a killed simulation keeps."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

_SUFFIX = ".npz"


@dataclass(frozen=True)
class Rows:
    """Examples from number `start` on: data set name -> array, first axis the example."""

    start: int
    arrays: Mapping[str, np.ndarray[Any, Any]]

    def __len__(self) -> int:
        return len(next(iter(self.arrays.values())))


class Parts:
    """A folder of `Rows`, one file each, that appear under their names only when they are whole."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)

    def done(self) -> set[int]:
        """First numbers of the runs that are kept."""
        return {int(path.stem) for path in self.folder.glob(f"*{_SUFFIX}")}

    def commit(self, rows: Rows) -> None:
        """Keep a run, for good even if the machine stops now."""
        path = self._path(rows.start)
        aside = path.with_name(f"{path.stem}.partial")
        with aside.open("wb") as file:
            np.savez(file, allow_pickle=False, **rows.arrays)
            file.flush()
            os.fsync(file.fileno())
        aside.replace(path)

    def load(self, start: int) -> Rows:
        """A run that was kept."""
        with np.load(self._path(start), allow_pickle=False) as file:
            return Rows(start, {name: file[name] for name in file.files})

    def remove(self) -> None:
        """All of it, once the set is written."""
        shutil.rmtree(self.folder)

    def _path(self, start: int) -> Path:
        return self.folder / f"{start:09d}{_SUFFIX}"
