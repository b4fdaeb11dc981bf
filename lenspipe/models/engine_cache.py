"""TensorRT's engines, kept between processes: building one takes minutes.

An entry is a folder named after everything that an engine depends on. It holds what TensorRT wrote
and a manifest with each file's SHA-256; it appears whole, by one rename, or not at all. A process
works in a copy of its own, since TensorRT rewrites files in place. An entry that is not what its
manifest says, or that TensorRT does not take, is removed and built anew.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
import weakref
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from lenspipe.models.card import file_sha256

VARIABLE = "LENSPIPE_ENGINE_CACHE"
_MANIFEST = "manifest.json"


def root() -> Path | None:
    """Where engines are kept on this machine: the folder in `LENSPIPE_ENGINE_CACHE`, by default
    `lenspipe/engines` in the user's cache; None where the variable is set and empty."""
    named = os.environ.get(VARIABLE)
    if named is not None:
        return Path(named) if named else None
    base = os.environ.get("XDG_CACHE_HOME")
    home = Path(base) if base else Path.home() / ".cache"
    return home / "lenspipe" / "engines"


@dataclass(frozen=True)
class EngineKey:
    """What an engine depends on. device: name and compute capability; versions: of ONNX Runtime,
    TensorRT and the driver; shapes: input -> shape with the batch; precision: `fp32` or `fp16`."""

    model_sha256: str
    device: str
    versions: str
    shapes: Mapping[str, tuple[int, ...]]
    precision: str

    @property
    def name(self) -> str:
        """The entry's folder."""
        shapes = {name: list(shape) for name, shape in sorted(self.shapes.items())}
        parts = [self.model_sha256, self.device, self.versions, shapes, self.precision]
        digest = hashlib.sha256(json.dumps(parts).encode()).hexdigest()
        return f"{self.model_sha256[:16]}-{digest[:16]}"


class Engines:
    """One process's working copy of an entry; the folder goes when this object does.

    folder: what TensorRT is given. reused: whether it holds engines of an earlier process.
    """

    def __init__(self, cache: Path, key: EngineKey) -> None:
        self._entry = cache / key.name
        self.folder = Path(tempfile.mkdtemp(prefix="lenspipe-engines-"))
        weakref.finalize(self, shutil.rmtree, self.folder, ignore_errors=True)
        self.reused = self._take()

    def _take(self) -> bool:
        """Copy the entry's files; an entry that is not whole is removed."""
        if not self._entry.is_dir():
            return False
        try:
            for name in _manifest(self._entry):
                shutil.copyfile(self._entry / name, self.folder / name)
            whole = _manifest(self._entry) == _files(self.folder)
        except (OSError, ValueError):
            whole = False
        if not whole:
            self.discard()
        return whole

    def publish(self) -> None:
        """Make what TensorRT wrote the entry, unless another process did so meanwhile. A folder
        that cannot be written costs the next process time, not this one its run."""
        written = _files(self.folder)
        if self.reused or not written:
            return
        with suppress(OSError):
            self._entry.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            aside = Path(tempfile.mkdtemp(prefix=".tmp-", dir=self._entry.parent))
            try:
                for name in written:
                    shutil.copyfile(self.folder / name, aside / name)
                (aside / _MANIFEST).write_text(json.dumps(written), encoding="utf-8")
                aside.rename(self._entry)
            finally:
                shutil.rmtree(aside, ignore_errors=True)

    def discard(self) -> None:
        """Remove the entry, whole or not at all, and empty the working copy."""
        with suppress(OSError):
            aside = Path(tempfile.mkdtemp(prefix=".tmp-", dir=self._entry.parent))
            self._entry.rename(aside / self._entry.name)
            shutil.rmtree(aside, ignore_errors=True)
        for path in self.folder.iterdir():
            path.unlink()
        self.reused = False


def _manifest(entry: Path) -> dict[str, str]:
    """File name -> SHA-256; ValueError where it is no such thing or names files elsewhere."""
    content = json.loads((entry / _MANIFEST).read_text(encoding="utf-8"))
    if not isinstance(content, dict) or any(Path(name).name != name for name in content):
        raise ValueError("not a manifest")
    return content


def _files(folder: Path) -> dict[str, str]:
    return {path.name: file_sha256(path) for path in folder.iterdir() if path.is_file()}
