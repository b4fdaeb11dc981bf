"""What each process of a group runs: a training by a recipe file on sets that lie beside it.

torchrun … -m tests.training.group_of_two FOLDER STOP_AFTER
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch

from training import fit
from training.data import load_images
from training.recipe import load_member


def main(folder: Path, stop_after: int) -> None:
    torch.set_num_threads(1)
    recipe = load_member(folder / "recipe.yaml")
    train, validation = (load_images(folder / f"{k}.h5") for k in ("train", "validation"))
    fit.fit(recipe, train, validation, folder / "group", device="cpu", stop_after=stop_after)


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
