"""Which kinds of source a field holds, and the faint ones: the same galaxies farther away."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from training.simulate import contaminants
from training.simulate.instrument import Instrument
from training.simulate.scene import Component, Scene
from training.simulate.shapes import Parameters

# Share of each kind among the imaged sources that are no lens. Red galaxies are several times as
# common as on the sky, so that a small demo has thousands of them to look through.
MIX: Mapping[str, float] = {
    "faint_early_type": 0.16,
    "faint_spiral": 0.26,
    "star": 0.2195,
    "early_type": 0.17,
    "spiral": 0.09,
    "edge_on": 0.03,
    "merger": 0.02,
    "companion": 0.02,
    "group": 0.02,
    "ring": 0.01,
    "saturated_star": 0.0005,
}
FAINT = "faint_"
FAINTEST_I_MAG = 24.0
BRIGHTEST_FAINT_I_MAG = 21.0
COUNTS_SLOPE = 0.35

_LENGTHS = frozenset(
    ("R_sersic", "center_x", "center_y", "scale_arcsec", "radius_arcsec", "width_arcsec", "sigma")
)


def _shrunk(parameters: Parameters, factor: float) -> Parameters:
    return {
        name: value * factor if name in _LENGTHS else value for name, value in parameters.items()
    }


def _dimmed(magnitudes: Mapping[str, float], by_mag: float) -> dict[str, float]:
    return {band: value + by_mag for band, value in magnitudes.items()}


def recede(scene: Scene, by_mag: float) -> Scene:
    """The same galaxy seen fainter by `by_mag` at the same surface brightness: all lengths
    shrink by 10^(-0.2 by_mag). For scenes of smooth profiles without a lens."""
    if scene.lens is not None or any(c.profile == "INTERPOL" for c in scene.components):
        raise ValueError(f"expected smooth profiles without a lens, found {scene.kind}")
    factor = 10.0 ** (-0.2 * by_mag)
    components = tuple(
        Component(c.profile, _shrunk(c.parameters, factor), _dimmed(c.magnitudes, by_mag))
        for c in scene.components
    )
    points = tuple(
        replace(
            p,
            x_arcsec=p.x_arcsec * factor,
            y_arcsec=p.y_arcsec * factor,
            magnitudes=_dimmed(p.magnitudes, by_mag),
        )
        for p in scene.points
    )
    return replace(
        scene,
        components=components,
        points=points,
        magnitudes=_dimmed(scene.magnitudes, by_mag),
        half_light_radius_arcsec=scene.half_light_radius_arcsec * factor,
        i_mag=scene.i_mag + by_mag,
    )


def faint_by(rng: np.random.Generator, i_mag: float) -> float:
    """How much fainter a galaxy of `i_mag` is made, so that counts rise on to i = 24.

    Counts per magnitude grow as 10^(0.35 m), as deep fields show.
    """
    low, high = BRIGHTEST_FAINT_I_MAG, FAINTEST_I_MAG
    slope = COUNTS_SLOPE * np.log(10)
    target = low + np.log1p(rng.random() * np.expm1(slope * (high - low))) / slope
    return float(max(target - i_mag, 0.0))


def assign_kinds(rng: np.random.Generator, count: int, lenses: int) -> list[str]:
    """Kinds of `count` sources in random order: exactly `lenses` lenses, the others by `MIX`."""
    shares = np.array(list(MIX.values()))
    kinds = np.full(count, "lens", dtype=object)
    others = rng.choice(list(MIX), size=count - lenses, p=shares / shares.sum())
    kinds[rng.permutation(count)[: count - lenses]] = others
    return [str(kind) for kind in kinds]


def draw(rng: np.random.Generator, kind: str, instrument: Instrument) -> Scene:
    """A scene of a kind of `MIX`, or a lens."""
    scene = contaminants.draw(rng, kind.removeprefix(FAINT), instrument)
    if not kind.startswith(FAINT):
        return scene
    return recede(scene, faint_by(rng, scene.magnitudes.get("i", scene.i_mag)))
