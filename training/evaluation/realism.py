"""How real the mocks are: can a classifier tell them from real stamps of the same class?

Two comparisons: real red galaxies against simulated early types, and arcs on real hosts against
whole simulated lenses. Each by the committee's own features, and by plain statistics, which say
what to mend: PSF, noise and its correlation, background, colours, sizes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Float32

from lenspipe.errors import InputError
from lenspipe.models.ensemble import Ensemble
from training.evaluation import features, probe, real_stamps
from training.evaluation.measures import measure
from training.evaluation.subject import seen_by
from training.recipe import Recipe
from training.simulate.dataset import Generator, parse_recipe

_FIRST_SEED = 7_000_000  # no recipe's set has a seed as high


@dataclass(frozen=True)
class Comparison:
    """Stamps of one class, real and mock. bands: of the stamps. objects: name of each stamp's real
    galaxy, or a name of its own."""

    images: Float32[np.ndarray, "n band y x"]
    bands: tuple[str, ...]
    real: Bool[np.ndarray, " n"]
    objects: np.ndarray


def comparisons(recipe: Recipe, ensemble: Ensemble, mocks: int) -> dict[str, Comparison]:
    """The two comparisons, real objects from the held-out side alone. mocks: stamps of each kind.

    InputError without `simulate.data`, and for another instrument than Pan-STARRS1.
    """
    block = dict(recipe.simulate_block("test"))
    real_stamps.check_instrument(block, recipe.name)
    if not block.get("data"):
        raise InputError(f"{recipe.name}: simulate.data", "a folder of real data", "none")
    common = block | {"n": mocks, "defects": {}, "hosts": "held_out"}
    galaxies = common | {
        "lens_fraction": 0.0,
        "real_negative_fraction": 0.0,
        "negatives": {"early_type": 1.0},
        "max_shift_pixels": 0,
    }
    lenses = common | {"lens_fraction": 1.0, "max_shift_pixels": 0}
    generator = Generator.of(parse_recipe(common))
    size = parse_recipe(common).size_pixels
    frames = real_stamps.held_out(real_stamps.read_frames(Path(block["data"])), seen_by(ensemble))
    hosts = {host.name for host in generator.hosts}
    own = real_stamps.centred([f for f in frames if f.name in hosts], size)
    channels = [real_stamps.BANDS.index(band) for band in generator.instrument.bands]
    bands = generator.instrument.bands
    return {
        "galaxies": _compared(
            [own.images[:, channels]], [own.frame], _simulated(galaxies, 0), bands
        ),
        "lenses": _compared(
            *_split(_simulated(lenses | {"painted_fraction": 1.0}, 1)),
            _simulated(lenses | {"painted_fraction": 0.0}, 2),
            bands,
        ),
    }


def judge(
    found: Mapping[str, Comparison],
    ensemble: Ensemble,
    pixel_scale_arcsec: float = real_stamps.PIXEL_SCALE_ARCSEC,
    zero_point_mag: float = real_stamps.ZERO_POINT_MAG,
) -> dict[str, Any]:
    """By comparison: `features` of all members together, of each member, `statistics` together,
    and `telling`: each statistic by itself, the most telling first."""
    report: dict[str, Any] = {"model": ensemble.name, "model_hash": ensemble.model_hash}
    for name, sets in found.items():
        inputs = real_stamps.model_images(sets.images, sets.bands, ensemble.inputs)
        members = features.committee(ensemble, inputs)
        measured = statistics(sets, pixel_scale_arcsec, zero_point_mag)
        columns = {**members, "statistics": np.stack(list(measured.values()), axis=1)}
        told = {
            key: probe.separability(values, sets.real, sets.objects)
            for key, values in columns.items()
        }
        together = np.concatenate(list(members.values()), axis=1)
        report[name] = {
            "features": probe.separability(together, sets.real, sets.objects),
            "statistics": told.pop("statistics"),
            "members": told,
            "telling": probe.telling(measured, sets.real),
        }
    return report


def statistics(
    sets: Comparison, pixel_scale_arcsec: float, zero_point_mag: float
) -> dict[str, np.ndarray]:
    """Columns of `measures.measure`."""
    rows = [measure(image, sets.bands, pixel_scale_arcsec, zero_point_mag) for image in sets.images]
    return {name: np.array([row[name] for row in rows]) for name in rows[0]}


@dataclass(frozen=True)
class _Made:
    images: Float32[np.ndarray, "n band y x"]
    objects: np.ndarray


def _simulated(block: dict[str, Any], which: int) -> _Made:
    """Stamps of a simulate block in memory."""
    generator = Generator.of(parse_recipe(block | {"seed": _FIRST_SEED + which}))
    made = [generator.example(k) for k in range(generator.recipe.n)]
    names = [example.host or f"mock {which} {k}" for k, example in enumerate(made)]
    return _Made(np.stack([example.image for example in made]), np.array(names, object))


def _split(made: _Made) -> tuple[list[Float32[np.ndarray, "n band y x"]], list[np.ndarray]]:
    """Painted lenses alone: behind some hosts nothing shows, and the simulation takes its own."""
    painted = np.array([not str(name).startswith("mock ") for name in made.objects], bool)
    return [made.images[painted]], [made.objects[painted]]


def _compared(
    images: Sequence[Float32[np.ndarray, "n band y x"]],
    objects: Sequence[np.ndarray],
    mocks: _Made,
    bands: tuple[str, ...],
) -> Comparison:
    return Comparison(
        np.concatenate([*images, mocks.images]),
        bands,
        np.repeat([True, False], [sum(map(len, images)), len(mocks.images)]),
        np.concatenate([*objects, mocks.objects]),
    )
