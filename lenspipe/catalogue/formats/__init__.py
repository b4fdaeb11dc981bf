"""Files that a table is written to, one module a format: its name is the file's suffix.

Each has `write(rows: pa.RecordBatchReader, path: Path, name: str) -> None`: rows whose fields carry
unit and description, the local file to make, and a name of the table. InputError where the format
cannot hold the rows.
"""

from __future__ import annotations

import sys
from pathlib import PurePosixPath
from types import ModuleType

import pyarrow as pa

from lenspipe import registry
from lenspipe.config import resolve
from lenspipe.errors import InputError
from lenspipe.storage.store import Store


def suffixes() -> list[str]:
    """What file names may end in."""
    return [f".{name}" for name in registry.names(_package())]


def require_known(out: str, field: str) -> None:
    """InputError where a file's suffix is of no format."""
    if PurePosixPath(out).suffix.lower() not in suffixes():
        raise InputError(field, f"a name that ends in {', '.join(suffixes())}", out)


def write_rows(rows: pa.RecordBatchReader, out: str, name: str, field: str = "FILE") -> None:
    """Write rows to a path or URL, by its suffix; the file is there whole or not at all."""
    require_known(out, field)
    suffix = PurePosixPath(out).suffix.lower()
    module = registry.load(_package(), suffix.removeprefix("."), field)
    folder, _, file = resolve(out, ".", field).rpartition("/")
    with Store(folder or "/").writing(file) as path:
        module.write(rows, path, name)


def _package() -> ModuleType:
    return sys.modules[__name__]
