"""The galaxy behind a lens: a disc with clumps, or a real one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from training.simulate import colours, priors
from training.simulate.passband import Filters
from training.simulate.scene import Component

if TYPE_CHECKING:
    from jaxtyping import Float32, Float64


@dataclass(frozen=True)
class SourceStamp:
    """A real galaxy as source light: image without noise or neighbours, its half-light radius in
    its own pixels; colours (g - r, r - i) of real galaxies that it may have, else a spectrum's;
    name: of the galaxy."""

    image: Float32[np.ndarray, "y x"]
    radius_pixels: float
    colours: Float64[np.ndarray, "n 2"] | None = None
    name: str = ""


def draw_source(
    rng: np.random.Generator,
    filters: Filters,
    at: tuple[float, float],
    z_source: float,
    r_mag: float,
    stamps: Sequence[SourceStamp] = (),
) -> tuple[Component, ...]:
    """A star-forming galaxy at a place (x, y) arcsec.

    A Sersic disc with up to three clumps, or, where there are `stamps`, in half of the cases a real
    galaxy turned at random and scaled to the size that was drawn.
    """
    radius = np.clip(
        2.2 * 10.0 ** rng.normal(0.0, 0.17) / priors.kpc_per_arcsec(z_source), 0.1, 0.6
    )
    colour = colours.draw(rng, "source", z_source, filters, reference="r")
    if stamps and rng.random() < 0.5:
        stamp = stamps[int(rng.integers(len(stamps)))]
        colour = _real_colour(rng, stamp, z_source, filters) or colour
        return (_real_source(rng, stamp, float(radius), at, priors.magnitudes(r_mag, colour)),)
    return _clumpy_source(rng, float(radius), at, priors.magnitudes(r_mag, colour))


def _real_colour(
    rng: np.random.Generator, stamp: SourceStamp, z_source: float, filters: Filters
) -> dict[str, float] | None:
    """Magnitudes less that in r, by the colours of one of the stamp's real galaxies."""
    if stamp.colours is None or not len(stamp.colours):
        return None
    g_r, r_i = map(float, stamp.colours[int(rng.integers(len(stamp.colours)))])
    less_i = colours.of_measured(rng, "source", z_source, (g_r, r_i), filters)
    return {band: value - r_i for band, value in less_i.items()}


def _real_source(
    rng: np.random.Generator,
    stamp: SourceStamp,
    radius_arcsec: float,
    at: tuple[float, float],
    total: priors.Magnitudes,
) -> Component:
    parameters = {
        "image": stamp.image,
        "scale": radius_arcsec / stamp.radius_pixels,
        "phi_G": float(rng.uniform(-np.pi, np.pi)),
        "center_x": at[0],
        "center_y": at[1],
    }
    return Component("STAMP", parameters, total, stamp.name)


def _clumpy_source(
    rng: np.random.Generator, radius: float, at: tuple[float, float], total: priors.Magnitudes
) -> tuple[Component, ...]:
    shape, index = priors.ellipticity(rng, 0.35, 0.95), float(rng.uniform(0.7, 1.8))
    rest = total
    clumps = []
    for _ in range(rng.integers(0, 4)):
        clump, rest = priors.split(rest, float(rng.uniform(0.05, 0.25)))
        dx, dy = rng.normal(0.0, 0.8 * radius, size=2)
        size = float(radius * rng.uniform(0.15, 0.4))
        clumps.append(priors.sersic(clump, size, 1.0, (0.0, 0.0), (at[0] + dx, at[1] + dy)))
    return (priors.sersic(rest, radius, index, shape, at), *clumps)


def dimmed(source: tuple[Component, ...], by_mag: float) -> tuple[Component, ...]:
    """The same source, fainter by `by_mag` in every band."""
    return tuple(
        replace(part, magnitudes={band: m + by_mag for band, m in part.magnitudes.items()})
        for part in source
    )
