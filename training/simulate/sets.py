"""Make a set of examples by a recipe: spread over workers, kept as it grows, resumed, written."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from training.simulate import set_file, spread
from training.simulate.dataset import (
    CHUNK_ROWS,
    Generator,
    SimulateRecipe,
    attributes,
    attributes_of_data_sets,
    parse_recipe,
)
from training.simulate.identity import of_stamps
from training.simulate.parts import Parts, Rows


def parts_of(recipe: SimulateRecipe, out: Path) -> Parts:
    """Where the runs of a set are kept until it is whole; another recipe, other real data and
    another generator have other places."""
    return Parts(out.with_name(f"{out.name}.parts-{of_stamps(recipe)[:12]}"))


def make_dataset(
    recipe: SimulateRecipe, out: Path, workers: int = 1, address: str | None = None
) -> None:
    """Write the set: HDF5, or Zarr v3 where the name ends in `.zarr`.

    images (n, band, y, x) float32 flux (or arcs, see the recipe's `content`; with several grids
    images_GRID for each, with its bands, pixel scale and zero point as attributes), label, kind,
    host, object_id, truth/*. A simulation that was stopped goes on where it was, and gives the same
    bytes as one that was not. address: of a Ray cluster, `local` for a Ray of this machine's own;
    None for processes without Ray.
    """
    generator = Generator.of(recipe)
    parts = parts_of(recipe, out)
    starts = range(0, recipe.n, CHUNK_ROWS)
    done = parts.done()
    todo = [start for start in starts if start not in done]
    _make(generator, todo, parts, workers, address)
    set_file.write(
        out,
        recipe.n,
        lambda: (parts.load(start) for start in starts),
        attributes(generator),
        attributes_of_data_sets(generator),
    )
    parts.remove()


def _make(
    generator: Generator, todo: Sequence[int], parts: Parts, workers: int, address: str | None
) -> None:
    began, made = time.monotonic(), 0
    before = generator.recipe.n - sum(_length(generator, start) for start in todo)
    for run in _spread(generator, todo, workers, address):
        parts.commit(run)
        made += len(run)
        _progress(before + made, generator.recipe.n, made / max(time.monotonic() - began, 1e-9))


def _length(generator: Generator, start: int) -> int:
    return min(CHUNK_ROWS, generator.recipe.n - start)


def _spread(
    generator: Generator, todo: Sequence[int], workers: int, address: str | None
) -> Iterator[Rows]:
    if not todo:
        return iter(())
    if address is not None:
        return spread.over_ray(generator.recipe, todo, workers, address)
    if workers <= 1:
        return spread.here(generator, todo)
    return spread.over_processes(generator.recipe, todo, workers)


def _progress(done: int, total: int, rate: float) -> None:
    end = "\n" if done == total else "\r"
    sys.stderr.write(f"simulate: {done}/{total} stamps, {rate:.0f}/s{end}")
    sys.stderr.flush()


def simulate(
    recipe_block: Mapping[str, Any], out: Path, workers: int, address: str | None = None
) -> None:
    """`python -m training simulate`: the block `simulate` of a recipe into a file."""
    out.parent.mkdir(parents=True, exist_ok=True)
    make_dataset(parse_recipe(recipe_block), out, workers, address)
