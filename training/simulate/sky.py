"""The demo's sky: coadd tiles, a partitioned catalogue, the truth, and a survey file for them.

    python -m training.simulate.sky OUT --seed 1 [--scale small]

Everything follows from the seed: two runs give the same pixels and the same bytes of catalogue.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from jaxtyping import Float32

from training.simulate import field, paint_field
from training.simulate.instrument import load_instrument
from training.simulate.paint_field import Painted, Part, TileJob, generator
from training.simulate.population import assign_kinds
from training.simulate.sky_catalogue import truth_table, write_catalogue
from training.simulate.survey_file import survey_file
from training.simulate.tile_pixels import MARGIN_PIXELS
from training.simulate.tiles import Mosaic, Tile, layout

T = TypeVar("T")

INSTRUMENT = "ps1"
CENTRE_DEG = (150.1, 2.2)
COMPRESSED = (0, "i")  # this band of the tile of this number is Rice-compressed
MANIFEST = "manifest.json"
# One thread each; and glibc keeps freed memory, since rendering allocates and frees images all the
# time and would spend half of its time in page faults.
_WORKER_ENVIRONMENT = {
    "OMP_NUM_THREADS": "1",
    "MALLOC_MMAP_THRESHOLD_": str(2**30),
    "MALLOC_TRIM_THRESHOLD_": str(2**31),
}


@dataclass(frozen=True)
class Scale:
    """How large a sky. side, overlap: pixels; imaged: sources on the tiles; rows: of the whole
    catalogue; lenses: among the imaged."""

    columns: int
    rows_of_tiles: int
    side: int
    overlap: int
    imaged: int
    rows: int
    lenses: int


SCALES = {
    "demo": Scale(3, 3, 2048, 100, 20_000, 250_000, 80),
    "small": Scale(2, 1, 256, 40, 160, 2_000, 6),
}


def make_sky(out: Path, seed: int, scale: Scale, workers: int = 1) -> bool:
    """Write the sky to `out`; False where a whole one of this seed and code is there already."""
    identity = {"seed": seed, "scale": asdict(scale), "generator": generator_version()}
    if _manifest(out) == identity:
        return False
    for folder in ("tiles", "catalogue"):
        shutil.rmtree(out / folder, ignore_errors=True)
        (out / folder).mkdir(parents=True)
    (out / MANIFEST).unlink(missing_ok=True)
    _write(out, seed, scale, workers)
    (out / MANIFEST).write_text(json.dumps(identity, indent=2) + "\n", encoding="utf-8")
    return True


def generator_version() -> str:
    """Hash of the code, the instruments and the spectra that a sky follows from."""
    here = Path(__file__).parent
    digest = hashlib.sha256()
    for path in sorted([*here.glob("*.py"), *here.glob("*/*.yaml")]):
        digest.update(path.name.encode() + path.read_bytes())
    return digest.hexdigest()[:16]


def _manifest(out: Path) -> object:
    try:
        return json.loads((out / MANIFEST).read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return None


def _write(out: Path, seed: int, scale: Scale, workers: int) -> None:
    instrument = load_instrument(INSTRUMENT)
    mosaic, tiles = layout(
        columns=scale.columns,
        rows=scale.rows_of_tiles,
        side=scale.side,
        overlap=scale.overlap,
        centre_deg=CENTRE_DEG,
        pixel_scale_arcsec=instrument.pixel_scale_arcsec,
    )
    parts = plan(seed, scale, mosaic, tiles)
    with _workers(workers) as run:
        painted = run(paint_field.paint, [(seed, part, INSTRUMENT) for part in parts])
        flux = _add_up(mosaic, tiles, painted)
        jobs = _tile_jobs(out / "tiles", mosaic, tiles, flux, instrument.bands)
        run(paint_field.write_bands, [(seed, job, INSTRUMENT) for job in jobs])
    truth = truth_table(mosaic, parts, painted)
    write_catalogue(out, truth, seed=seed, rows=scale.rows, mosaic=mosaic, instrument=instrument)
    (out / "survey.yaml").write_text(survey_file(instrument.bands), encoding="utf-8")


@contextmanager
def _environment(values: Mapping[str, str]) -> Iterator[None]:
    before = dict(os.environ)
    os.environ.update(values)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


@contextmanager
def _workers(count: int) -> Iterator[Callable[[Callable[..., T], list[tuple[Any, ...]]], list[T]]]:
    """A function that calls another on a list of arguments, in `count` processes."""
    if count == 1:
        yield lambda function, calls: [function(*arguments) for arguments in calls]
        return
    with (
        _environment(_WORKER_ENVIRONMENT),
        ProcessPoolExecutor(count, mp_context=get_context("spawn")) as pool,
    ):
        yield lambda function, calls: [
            future.result() for future in [pool.submit(function, *a) for a in calls]
        ]


def plan(seed: int, scale: Scale, mosaic: Mosaic, tiles: tuple[Tile, ...]) -> list[Part]:
    """Positions and kinds of all imaged sources, by the tile that is their home."""
    rng = generator(seed, paint_field.FIELD)
    x, y = field.scatter(rng, mosaic, scale.imaged)
    kinds = np.array(assign_kinds(rng, scale.imaged, scale.lenses))
    step = scale.side - scale.overlap
    column = np.minimum(((x - scale.overlap / 2) // step).clip(0), scale.columns - 1)
    row = np.minimum(((y - scale.overlap / 2) // step).clip(0), scale.rows_of_tiles - 1)
    home = (row * scale.columns + column).astype(np.int64)
    parts = []
    for number, tile in enumerate(tiles):
        index = np.flatnonzero(home == number)
        parts.append(Part(tile, number, index, x[index], y[index], tuple(kinds[index].tolist())))
    return parts


def _add_up(
    mosaic: Mosaic, tiles: tuple[Tile, ...], painted: list[Painted]
) -> Float32[np.ndarray, "band y x"]:
    """All parts on one grid, so that tiles that overlap show the same sources."""
    margin = 2 * MARGIN_PIXELS
    height, width = mosaic.shape
    total = np.zeros((len(painted[0].flux), height + margin, width + margin), dtype=np.float32)
    for tile, part in zip(tiles, painted, strict=True):
        total[:, *_padded(tile)] += part.flux
    return total


def _padded(tile: Tile) -> tuple[slice, slice]:
    side = tile.side + 2 * MARGIN_PIXELS
    return slice(tile.y, tile.y + side), slice(tile.x, tile.x + side)


def _tile_jobs(
    folder: Path,
    mosaic: Mosaic,
    tiles: tuple[Tile, ...],
    flux: Float32[np.ndarray, "band y x"],
    bands: tuple[str, ...],
) -> list[TileJob]:
    return [
        TileJob(
            tile,
            number,
            mosaic,
            np.ascontiguousarray(flux[:, *_padded(tile)]),
            tile_paths(folder, tile, number, bands),
        )
        for number, tile in enumerate(tiles)
    ]


def tile_paths(folder: Path, tile: Tile, number: int, bands: tuple[str, ...]) -> tuple[Path, ...]:
    """File of each band of a tile."""
    return tuple(
        folder / f"{tile.name}_{band}.fits{'.fz' if (number, band) == COMPRESSED else ''}"
        for band in bands
    )


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m training.simulate.sky", description=__doc__)
    parser.add_argument("out", type=Path)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--scale", choices=sorted(SCALES), default="demo")
    parser.add_argument("--workers", type=int, default=2)
    arguments = parser.parse_args()
    made = make_sky(arguments.out, arguments.seed, SCALES[arguments.scale], arguments.workers)
    print(f"sky: {'made' if made else 'reused'} {arguments.out}")  # noqa: T201 - a command's answer


if __name__ == "__main__":
    main()
