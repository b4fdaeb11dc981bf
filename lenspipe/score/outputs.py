"""What `lenspipe score` writes, and that it is none of what it reads."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from lenspipe.config import is_url, resolve
from lenspipe.errors import InputError
from lenspipe.preflight import check_output

_SUFFIX = ".parquet"


@dataclass(frozen=True)
class Outputs:
    """The files of one call, all in `folder`. report: whether the page is written too."""

    folder: str
    scores: str
    report: bool = False

    @property
    def failures(self) -> str:
        """Name of the rows without a score."""
        return f"{self.scores.removesuffix(_SUFFIX)}.failures{_SUFFIX}"

    @property
    def page(self) -> str:
        """Name of the page."""
        return f"{self.scores.removesuffix(_SUFFIX)}.report.html"

    @property
    def paths(self) -> list[str]:
        """Absolute path or URL of every file that is written."""
        names = [self.scores, self.failures, *([self.page] if self.report else [])]
        return [f"{self.folder}/{name}" for name in names]


def name_outputs(out: str | Path, report: bool = False) -> Outputs:
    """The files that `--out` stands for. InputError where they cannot be written."""
    folder, _, name = _as_path(resolve(str(out), str(Path.cwd()), "--out")).rpartition("/")
    if not name.endswith(_SUFFIX) or name == _SUFFIX:
        raise InputError("--out", "a name that ends in .parquet", out)
    if folder.endswith(":/"):
        raise InputError("--out", "a bucket and a name in it", out)
    outputs = Outputs(folder, name, report)
    for path in outputs.paths:
        if not is_url(path) and Path(path).is_dir():
            raise InputError("--out", "a file", f"the folder {path}")
    check_output(folder, "--out")
    return outputs


def refuse_inputs(outputs: Outputs, files: Iterable[str], stores: Sequence[str]) -> None:
    """InputError where a file that is read would be written over.

    files: paths and URLs that are read, asked for only where an output is there already. stores:
    folders that are read as one, such as a Zarr store: nothing new may come into them either.
    A new file in a folder of cutouts is fine.
    """
    for path in outputs.paths:
        for store in stores:
            if f"{_real(path)}/".startswith(f"{_real(store)}/"):
                raise InputError("--out", "a file outside of the cutouts' store", path)
    there = {key: path for path in outputs.paths for key in _identities(path)}
    for file in files if there else ():
        for key in _identities(file):
            if key in there:
                raise InputError("--out", "no file that is read", f"{there[key]}, which is {file}")


def _identities(path: str) -> Iterator[object]:
    """What tells a file from all others, by whatever name it is called; nothing where none is
    there. A store is not asked: its URL stands for the object."""
    path = _as_path(path)
    if is_url(path):
        yield path
        return
    try:
        found = os.stat(path)  # noqa: PTH116  # asked of every stamp, Path costs as much again
    except OSError:
        return
    yield (found.st_dev, found.st_ino)


def _real(path: str) -> str:
    path = _as_path(path)
    return path.rstrip("/") if is_url(path) else os.path.realpath(path)


def _as_path(path: str) -> str:
    """The path that a URL of this machine stands for; of two names of one store the first."""
    for scheme, plain in (("file://", ""), ("local://", ""), ("s3a://", "s3://")):
        if path.startswith(scheme):
            return plain + path.removeprefix(scheme)
    return path
