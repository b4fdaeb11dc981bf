"""What a run is: configuration, models and inputs. A resume with others is refused."""

from __future__ import annotations

import hashlib
import platform
from collections.abc import Iterable, Iterator, Mapping
from importlib.metadata import version
from typing import Any

from lenspipe import __version__
from lenspipe.errors import ResumeRefusedError
from lenspipe.run_directory import RUN, RunDirectory
from lenspipe.select.files import CatalogueFile

# A result depends on these; versions and times in run.json are only told.
IDENTITY_KEYS = ("survey", "models", "inputs", "pixels")
_TOLD = ("ray", "onnxruntime", "duckdb", "pyarrow", "astropy", "numpy", "zarr", "h5py", "hats")


def versions() -> dict[str, str]:
    """Versions of lenspipe and of what its results could depend on."""
    told = {"lenspipe": __version__, "python": platform.python_version()}
    for name in _TOLD:
        try:
            told[name] = version(name)
        except ModuleNotFoundError:  # onnxruntime-gpu in place of onnxruntime
            continue
    return told


def fingerprint(files: Iterable[CatalogueFile]) -> str:
    """SHA-256 over the catalogue's files: path, size, time or ETag."""
    digest = hashlib.sha256()
    for file in sorted(files, key=lambda file: file.path):
        digest.update(f"{file.path}|{file.size_bytes}|{file.fingerprint}\n".encode())
    return digest.hexdigest()


def _scoring(identity: Mapping[str, Any]) -> dict[str, Any]:
    """What scores depend on. Candidates are chosen and shown anew by every publish."""
    kept = {key: dict(identity.get(key) or {}) for key in IDENTITY_KEYS}
    for key in ("candidates", "publish"):
        kept["survey"].pop(key, None)
    return kept


def differences(
    before: Mapping[str, Any], now: Mapping[str, Any], path: str = ""
) -> Iterator[tuple[str, Any, Any]]:
    """(dotted key, value before, value now) wherever two nested mappings differ."""
    for key in sorted({*before, *now}):
        first, second = before.get(key), now.get(key)
        where = f"{path}.{key}" if path else str(key)
        if isinstance(first, Mapping) and isinstance(second, Mapping):
            yield from differences(first, second, where)
        elif first != second:
            yield where, first, second


def check_same_run(
    run: RunDirectory, identity: Mapping[str, Any], other_pixels: bool = False
) -> bool:
    """Whether a run of this identity was begun here; ResumeRefusedError where it was another.

    other_pixels: files of pixels may have come or gone since, for shards that are done again.
    """
    before = run.read_json(RUN)
    if before is None:
        if run.is_begun():
            raise ResumeRefusedError(
                f"run {run.url}", f"{RUN} beside the commits, or --fresh", "commits without it"
            )
        return False
    known, now = _scoring(before), _scoring(identity)
    if other_pixels:
        known["pixels"] = now["pixels"]
    found = list(differences(known, now))
    if found:
        key, old, new = found[0]
        more = f" (and {len(found) - 1} more differences)" if len(found) > 1 else ""
        only_pixels = all(name.startswith("pixels.") for name, _, _ in found)
        remedy = "--retry-failed" if only_pixels else "--fresh"
        raise ResumeRefusedError(
            f"run {run.url}: {key}", f"{old!r} as in the run on disk, or {remedy}", f"{new!r}{more}"
        )
    return True
