"""What a run needs around it: a place to write to, slots for workers, a cluster that answers."""

from __future__ import annotations

import os
import resource
import shutil
import socket
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from urllib.parse import urlsplit

import fsspec
import onnxruntime

from lenspipe.config import Runtime, is_url
from lenspipe.errors import InputError
from lenspipe.models.providers import RUNTIME_NAMES, cuda_devices
from lenspipe.processes.slots import Machine, Slots, plan_slots
from lenspipe.run_directory import WRITTEN_FOLDERS
from lenspipe.storage.remote import raise_if_passing

# Stores that put a file whole or not at all, and that every worker can reach.
_PROTOCOLS = frozenset(("file", "local", "s3", "s3a", "gs", "gcs", "az", "abfs", "abfss"))
_CONNECT_S = 5.0
_MOST_FILES = 65_536  # beyond it, programs that close all they might have take seconds


def check_output(url: str, field: str = "output") -> None:
    """InputError at `field` where nothing can be written below `url`; leaves nothing there."""
    if is_url(url):
        _check_store(url, field)
    else:
        _check_folder(Path(url), field)


def check_apart(output: str, sources: Sequence[str], inputs: Mapping[str, str]) -> None:
    """InputError where a run would write among its own inputs, or over them.

    sources: files and folders of the catalogue. inputs: field of the survey file -> path, of a
    pattern what stands before its wildcards. A run replaces folders of its directory as a whole,
    and `--fresh` erases them.
    """
    folder = _real(output)
    for path in sources:
        if _is_below(folder, _real(path)):
            raise InputError("output", "a folder outside of the catalogue's", f"{output} in {path}")
    written = [f"{folder}/{name}" for name in WRITTEN_FOLDERS]
    for field, path in (*(("sources.path", path) for path in sources), *inputs.items()):
        if any(_is_below(_real(path), place) for place in written):
            raise InputError(field, f"files that no run writes over (output is {output})", path)


def _real(path: str) -> str:
    """An absolute path behind links; a URL as it is."""
    return path.rstrip("/") if is_url(path) else os.path.realpath(path)


def _is_below(path: str, folder: str) -> bool:
    return f"{path}/".startswith(f"{folder.rstrip('/')}/")


def free_bytes(url: str) -> int | None:
    """Free space of the disk under a run directory; None for an object store."""
    return None if is_url(url) else shutil.disk_usage(_nearest(Path(url))).free


def allow_open_files() -> int:
    """Let this process, and what it starts, open as many files as the system grants without asking
    (the hard limit); returns how many that are."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _MOST_FILES if hard == resource.RLIM_INFINITY else min(hard, _MOST_FILES)
    if wanted <= soft or soft == resource.RLIM_INFINITY:
        return soft
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    except (OSError, ValueError):  # macOS has a lower limit of its own, and tells none
        return soft
    return wanted


def local_slots(runtime: Runtime) -> Slots:
    """The plan for this machine alone; InputError where what the survey file asks cannot run."""
    machine = Machine(cpus=len(os.sched_getaffinity(0)), gpus=cuda_devices())
    slots = plan_slots(machine, runtime)
    available = onnxruntime.get_available_providers()
    if RUNTIME_NAMES[slots.provider] not in available:
        raise InputError(
            "runtime.provider",
            f"one of this onnxruntime ({', '.join(available)})",
            f"{runtime.provider}, here {RUNTIME_NAMES[slots.provider]}",
        )
    return slots


def check_address(address: str, field: str = "--address") -> None:
    """InputError where nothing listens at a cluster's address: Ray itself would wait a minute.

    `auto` and `local` are left to Ray.
    """
    if address in ("auto", "local"):
        return
    host, port = _host_and_port(address, field)
    try:
        socket.create_connection((host, port), timeout=_CONNECT_S).close()
    except OSError as error:
        raise InputError(field, "a Ray head that answers", f"{address}: {error}") from error


def _host_and_port(address: str, field: str) -> tuple[str, int]:
    kind, _, rest = address.rpartition("://")
    try:
        parts = urlsplit(f"//{rest}")
        host, port = parts.hostname, parts.port
    except ValueError:
        host = port = None
    if kind not in ("", "ray") or not host or not port:
        raise InputError(field, "auto, HOST:PORT or ray://HOST:PORT", repr(address))
    return host, port


def _check_store(url: str, field: str) -> None:
    protocol = url.partition("://")[0]
    if protocol not in _PROTOCOLS:
        raise InputError(field, "a folder, or a URL of s3://, gs:// or az://", url)
    try:
        fs, root = fsspec.core.url_to_fs(url)
        found = fs.info(root) if fs.exists(root) else {"type": "directory"}
    except Exception as error:  # each store's library has exceptions of its own
        raise_if_passing(error)
        raise InputError(field, "a store that answers", f"{url}: {error}") from error
    if found.get("type") == "file":
        raise InputError(field, "a folder or a place for one", f"the file {url}")
    if protocol in ("file", "local"):
        _check_folder(Path(root), field)


def _check_folder(path: Path, field: str) -> None:
    nearest = _nearest(path)
    if not nearest.is_dir():
        raise InputError(field, "a folder or a place for one", f"the file {nearest}")
    try:
        # Rights alone do not tell: root may write everywhere, but not on a read-only disk.
        Path(tempfile.mkdtemp(prefix=".lenspipe-", dir=nearest)).rmdir()
    except OSError as error:
        raise InputError(field, "a folder that can be written", f"{path}: {error}") from error


def _nearest(path: Path) -> Path:
    """The path itself, or what is there of the folders above it."""
    return next(folder for folder in (path, *path.parents) if os.path.lexists(folder))
