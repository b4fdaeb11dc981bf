"""An image that buildah builds with no container engine and no registry, and a container of it.

`buildah run` has no read-only root file system, so `Container.read_only` does what a container
engine does with an image's configuration: namespaces, mounts, user, environment.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.tools import lacking, require_tool

ROOT = Path(__file__).parents[2]
CERTIFICATES = Path("/etc/ssl/certs")
BUILD_S = 900
_ISOLATED = {**os.environ, "BUILDAH_ISOLATION": "chroot"}

# What a kernel and an engine give to a container. Words: root, user, then the command.
_IN_CONTAINER = """
set -eu
root=$1 user=$2
shift 2
mount --bind "$root" "$root"
mount -o remount,bind,ro "$root"
mount -t proc proc "$root/proc"
mount --rbind /dev "$root/dev"
mount -t tmpfs -o mode=1777,noexec,nosuid,nodev tmpfs "$root/tmp"
for volume in $VOLUMES; do
    mount --bind "${volume%%:*}" "$root${volume#*:}"
done
exec chroot --userspec="$user" "$root" env --ignore-environment --chdir=/tmp "$@"
"""


@dataclass(frozen=True)
class Store:
    """Images and containers of one folder."""

    folder: Path

    def run(self, *words: str | Path, timeout: float = 60) -> str:
        """One command of buildah; what it prints. AssertionError with all of it where it fails."""
        places = ["--root", self.folder / "root", "--runroot", self.folder / "runroot"]
        command = [require_tool("buildah"), "--storage-driver", "vfs", *places, *words]
        done = subprocess.run(
            [str(word) for word in command],
            capture_output=True,
            text=True,
            check=False,
            timeout=timeout,
            env=_ISOLATED,
        )
        assert done.returncode == 0, f"{words}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
        return done.stdout


@dataclass(frozen=True)
class Container:
    """A container of an image. config: the image's, as engines read it."""

    store: Store
    name: str
    root: Path
    config: Mapping[str, Any]
    size_bytes: int

    def run(self, *words: str, timeout: float = 60) -> str:
        """What a command in it prints, as the image's own user."""
        return self.store.run("run", self.name, "--", *words, timeout=timeout)

    def read_only(self, words: Sequence[str], volumes: Mapping[Path, str]) -> list[str]:
        """The command that runs `words` as the container's first process, on a read-only root."""
        mounted = " ".join(f"{here}:{there}" for here, there in volumes.items())
        spaces = ["unshare", "--mount", "--pid", "--fork", "--kill-child"]
        script = ["env", f"VOLUMES={mounted}", "sh", "-c", _IN_CONTAINER, "sh"]
        first = [str(self.root), self.config["User"], *self.config["Env"], *words]
        return [*spaces, *script, *first]

    def beside(self, first: int, words: Sequence[str]) -> list[str]:
        """The command that runs `words` in the container whose first process has this id here."""
        user, group = self.config["User"].split(":")
        there = ["nsenter", f"--target={first}", "--mount", "--pid", "--root", "--wd=/tmp"]
        plain = ["env", "--ignore-environment", *self.config["Env"]]
        return [*there, f"--setuid={user}", f"--setgid={group}", *plain, *words]


def can_mount() -> bool:
    """Whether this process may make the namespaces and mounts of a container."""
    words = ["unshare", "--mount", "--pid", "--fork", "mount", "-t", "tmpfs", "tmpfs", "/mnt"]
    return subprocess.run(words, capture_output=True, check=False).returncode == 0


@contextmanager
def built(target: str, folder: Path) -> Iterator[Container]:
    """A container of a target of the Dockerfile; all that it takes on the disk goes at the end."""
    for tool in ("buildah", "debootstrap"):
        require_tool(tool)
    if not can_mount():
        lacking("buildah and debootstrap need rights to mount, which this process has not")
    store = Store(folder)
    try:
        _make_base(store)
        tag = f"lenspipe-test:{target}"
        mounts = [f"--volume={CERTIFICATES}:{CERTIFICATES}:ro"] if CERTIFICATES.is_dir() else []
        build = ["build", "--pull-never", "--format=docker", *mounts, f"--target={target}"]
        store.run(*build, f"--tag={tag}", ROOT, timeout=BUILD_S)
        name = store.run("from", "--pull-never", tag, timeout=300).strip()
        root = Path(store.run("mount", name).strip())
        # HEALTHCHECK stands in this description alone.
        described = json.loads(store.run("inspect", name))["Docker"]["config"]
        size = sum(file.lstat().st_size for file in root.rglob("*"))
        yield Container(store, name, root, described, size)
    finally:
        shutil.rmtree(folder)


def _make_base(store: Store) -> None:
    """The image that FROM names, made of Debian's own packages and as bare as the published one."""
    [name] = re.findall(r"^FROM (\S+:\S+)", (ROOT / "Dockerfile").read_text("utf-8"), re.M)
    tree = store.folder / "debian"
    suite = name.partition(":")[2].removesuffix("-slim")
    words = [require_tool("debootstrap"), "--variant=minbase", suite, str(tree)]
    done = subprocess.run(words, capture_output=True, text=True, check=False, timeout=600)
    assert done.returncode == 0, f"{done.stdout[-2000:]}\n{done.stderr[-2000:]}"
    for part in ("doc", "info", "locale", "man"):
        shutil.rmtree(tree / "usr" / "share" / part, ignore_errors=True)
    for archive in (tree / "var" / "cache" / "apt" / "archives").glob("*.deb"):
        archive.unlink()
    scratch = store.run("from", "scratch").strip()
    store.run("copy", "--quiet", scratch, tree, "/", timeout=300)
    store.run("commit", "--quiet", "--rm", scratch, name, timeout=300)
    shutil.rmtree(tree)
