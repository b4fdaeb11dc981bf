"""Where a model lies: a name in the zoo or a path."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

from lenspipe.errors import InputError
from lenspipe.storage.outage import is_passing

SUFFIXES = (".yaml", ".yml", ".onnx")


def folder() -> Path:
    """Where the shipped models lie."""
    return Path(str(files("lenspipe"))) / "zoo"


def names() -> list[str]:
    """Names of the shipped ensembles and networks."""
    return sorted({path.stem for path in folder().glob("*") if path.suffix in SUFFIXES})


def is_path(name_or_path: str) -> bool:
    """Whether a model is meant by its path: it ends in .onnx, .yaml or .yml, or has a slash."""
    return Path(name_or_path).suffix in SUFFIXES or "/" in name_or_path


def find(name_or_path: str, base: str | Path = ".", field: str = "model") -> Path:
    """File of a model: a name in the zoo, or a path (relative ones start from `base`); see
    `is_path`. InputError lists what there is."""
    given = Path(name_or_path)
    if is_path(name_or_path):
        path = given if given.is_absolute() else Path(base) / given
        if not _is_file(path, field):
            raise InputError(field, "a model file", f"nothing at {path}")
        return path
    for suffix in SUFFIXES:
        path = folder() / f"{name_or_path}{suffix}"
        if _is_file(path, field):
            return path
    known = ", ".join(names()) or "none shipped"
    raise InputError(field, f"a path or one of {known}", repr(name_or_path))


def _is_file(path: Path, field: str) -> bool:
    """InputError where the system lets nobody look: a name too long, a folder that is closed. The
    error itself where storage or machine refuse for now."""
    try:
        return path.is_file()
    except OSError as error:
        if is_passing(error):
            raise
        raise InputError(field, "a path that can be looked at", error) from error
