"""What a simulated set is made of, as one name: another name wherever the bytes may differ."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

from training.simulate import hosts, instrument, photometry, real, real_colours, sed
from training.simulate.dataset import SimulateRecipe, parse_recipe
from training.simulate.photometry import PhotometryBlock

# One more wherever the same block and the same files give another set.
GENERATOR_VERSION = 3


def identity(block: Mapping[str, Any], *, table: bool = False) -> str:
    """SHA-256 of all that makes a set: the block `simulate` with its defaults, the files of
    instruments and spectra, names and sizes of the real data that it takes, `GENERATOR_VERSION`.

    table: a set of photometry. Where the real data lies is no part of it. InputError: a key that is
    wrong; a folder of real data that is not there.
    """
    if table:
        return of_photometry(photometry.parse_block(block))
    return of_stamps(parse_recipe(block))


def of_stamps(recipe: SimulateRecipe) -> str:
    """`identity` of a set of stamps."""
    instruments = (recipe.instrument, *recipe.also_hosts_of)
    wanted = [*real.SOURCE_FILES, *instrument.psf_files(recipe.instrument)]
    wanted += [pattern for name in instruments for pattern in hosts.files(name)]
    wanted += real_colours.FILES if recipe.source_colours == "real" else ()
    return _digest(recipe, instruments, _found(real.data_folder(recipe.data), wanted))


def of_photometry(block: PhotometryBlock) -> str:
    """`identity` of a set of photometry."""
    wanted = [photometry.LRG_TABLE] if block.lrg_rows else []
    folder = real.data_folder(block.data) if wanted else None
    return _digest(block, (block.instrument,), _found(folder, wanted))


def _digest(
    block: SimulateRecipe | PhotometryBlock,
    instruments: Iterable[str],
    real_files: Mapping[str, int],
) -> str:
    content = {
        "generator": GENERATOR_VERSION,
        "block": block.model_dump(mode="json", exclude={"data"}),
        "instruments": {name: _sha256(instrument.file_of(name)) for name in instruments},
        "spectra": {name: _sha256(sed.file_of(name)) for name in sed.names()},
        "real": dict(real_files),
    }
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _found(data: Path | None, patterns: Iterable[str]) -> dict[str, int]:
    """Size of each file of real data, by its path in the folder."""
    paths = [path for pattern in patterns for path in (data.glob(pattern) if data else ())]
    return {path.relative_to(data or "").as_posix(): path.stat().st_size for path in paths}


@lru_cache(maxsize=128)
def _sha256(path: Path) -> str:
    """Of a file that comes with the package; empty where it is not there."""
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else ""
