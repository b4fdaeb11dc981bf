"""Where intermediate files lie, and what they hold by their hashes."""

from __future__ import annotations

import json
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from lenspipe.errors import InputError
from lenspipe.models.card import file_sha256
from training import fit, mining
from training.recipe import MemberRecipe, Recipe, digest
from training.stored import set_sha256


@dataclass(frozen=True)
class Workspace:
    """Where intermediate files lie, and what the machine has.

    device: of the training, None for a GPU where there is one. workers: simulation processes.
    address: of the Ray cluster that simulates instead, `local` for one of this machine alone.
    zarr: whether sets of stamps are written as Zarr, and not as HDF5; both are read.
    """

    root: Path
    device: str | None = None
    workers: int = 1
    address: str | None = None
    zarr: bool = False

    def data(self, recipe: Recipe, split: str) -> Path:
        """File of one set: two recipes with the same simulate block share it.

        InputError: a wrong key of the block; real data that is not there.
        """
        from training.simulate.identity import identity

        table = isinstance(recipe, MemberRecipe) and recipe.task == "photometry"
        block = recipe.simulate_block(split)
        stem = f"seed{block['seed']}-{identity(block, table=table)[:12]}"
        hdf5, store = (self.root / "data" / f"{stem}.{suffix}" for suffix in ("h5", "zarr"))
        if table:
            return hdf5.with_suffix(".parquet")
        return store if self.zarr or (store.exists() and not hdf5.exists()) else hdf5

    def member(self, recipe: MemberRecipe) -> Path:
        """Folder of one network's training."""
        return self.root / "members" / f"{recipe.name}-{recipe.sha256()[:12]}"

    def best(self, recipe: MemberRecipe) -> Path:
        """The checkpoint with a network's weights; of the last round where there are several."""
        last = (
            mining.round_folder(self.member(recipe), recipe.mining.rounds)
            if recipe.mining
            else None
        )
        return (last or self.member(recipe)) / fit.BEST

    def graph(self, recipe: MemberRecipe) -> Path:
        """The exported network, not yet with its card; other views of the stamp are another."""
        views = f"-{digest(recipe.views.model_dump(mode='json'))[:8]}" if recipe.views else ""
        return self.member(recipe) / f"graph{views}.onnx"

    def blend(self, recipe: Recipe, key: str) -> Path:
        """An ensemble that was fitted. key: a hash of what it was fitted from."""
        return self.root / "blends" / f"{recipe.name}-{key[:12]}.json"

    def report(self, recipe: Recipe) -> Path:
        """Folder of the evaluation page."""
        return self.root / "reports" / recipe.name


def set_file(recipe: Recipe, split: str, work: Workspace) -> Path:
    """The file of one set; InputError where it was not simulated."""
    path = work.data(recipe, split)
    if not path.exists():
        raise InputError(f"{recipe.name}: set {split}", f"a simulated file {path}", "none")
    return path


def known_sha256(path: Path) -> str:
    """SHA-256 of a set, noted beside it: a file that was not touched is not read again.

    A Zarr store is read each time: what is in it may change without a trace on the folder.
    """
    if path.is_dir():
        return set_sha256(path)
    stat, note = path.stat(), path.with_name(f"{path.name}.sha256.json")
    state = [stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns, stat.st_ino]
    with suppress(OSError, ValueError, TypeError, KeyError):  # no note, or one cut short
        told = json.loads(note.read_text(encoding="utf-8"))
        if told["state"] == state:
            return str(told["sha256"])
    found = file_sha256(path)
    with suppress(OSError):  # a folder that nobody may write to is read each time
        write_whole(note, json.dumps({"sha256": found, "state": state}))
    return found


def write_whole(path: Path, text: str) -> None:
    """A file that is there whole or not at all."""
    aside = path.with_name(f"part-{path.name}")
    aside.write_text(text + "\n", encoding="utf-8")
    aside.replace(path)
