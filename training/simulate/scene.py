"""A scene: what stands at one place of the sky, and its light on a pixel grid before the PSF."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np

from training.simulate import shapes
from training.simulate.deflection import shoot
from training.simulate.shapes import Parameters

if TYPE_CHECKING:
    from jaxtyping import Float32, Float64

Bands = Sequence[str]

# Half-width (pixels) of the box around a profile's centre that is sampled finely: a Sersic cusp has
# most of its curvature there.
_CUSP_PIXELS = 3
# Rays that meet a part of the source where it is fainter than this part of its centre are not
# followed by finer ones: their single sample is right to well under 1e-5 of an image's peak.
_FAINT = 5e-6


@dataclass(frozen=True)
class Sampling:
    """Samples per pixel side.

    light: of unlensed profiles; cusp: in a box around the centre of each; arcs: rays where a lensed
    source is bright (elsewhere it has one).
    """

    light: int = 2
    cusp: int = 8
    arcs: int = 5

    @classmethod
    def uniform(cls, samples: int) -> Sampling:
        """The same everywhere, as lenstronomy's `supersampling_factor` has it."""
        return cls(samples, samples, samples)


ADAPTIVE = Sampling()


@dataclass(frozen=True)
class Component:
    """One extended light profile. parameters: its keywords in arcsec from the scene's centre
    (lenstronomy's names); magnitudes: band -> total AB magnitude; name: of the real galaxy that it
    is the image of."""

    profile: str
    parameters: Parameters
    magnitudes: Mapping[str, float]
    name: str = ""


@dataclass(frozen=True)
class Point:
    """A star: position in arcsec from the scene's centre, band -> AB magnitude."""

    x_arcsec: float
    y_arcsec: float
    magnitudes: Mapping[str, float]


@dataclass(frozen=True)
class Lens:
    """Mass (lenstronomy model name, keywords) and the source behind it, unlensed magnitudes."""

    mass: tuple[tuple[str, Parameters], ...]
    source: tuple[Component, ...]


@dataclass(frozen=True)
class Scene:
    """One object of the sky.

    kind: `lens` or a class of `training.simulate.contaminants`. magnitudes: band -> total AB
    magnitude of all that belongs to the catalogue's object (a lens: host and arcs). i_mag: about
    its Pan-STARRS i magnitude, whatever the survey's bands (a lens: the host's). truth: numbers
    such as theta_e_arcsec, z_lens, z_source, arc_mag_g; absent where they have no meaning.
    """

    kind: str
    components: tuple[Component, ...]
    magnitudes: Mapping[str, float]
    half_light_radius_arcsec: float = 0.0
    i_mag: float = float("nan")
    points: tuple[Point, ...] = ()
    lens: Lens | None = None
    truth: Mapping[str, float] = field(default_factory=dict)

    @property
    def reach_arcsec(self) -> float:
        """Distance from the centre beyond which the scene is fainter than any survey's noise."""
        reach = [
            float(np.hypot(c.parameters.get("center_x", 0.0), c.parameters.get("center_y", 0.0)))
            + 8.0 * shapes.radius_arcsec(c.profile, c.parameters)
            for c in self.components
        ]
        arcs = 2.0 * self.truth.get("theta_e_arcsec", 0.0) + 3.0 if self.lens else 0.0
        return max([3.0, arcs, *reach])


def flux(magnitude: float, zero_point_mag: float) -> float:
    """Flux of an AB magnitude, in units of which one has magnitude `zero_point_mag`."""
    return float(10.0 ** (-0.4 * (magnitude - zero_point_mag)))


def magnitude(total_flux: float, zero_point_mag: float) -> float:
    """AB magnitude of a flux; infinite where there is none."""
    return float(zero_point_mag - 2.5 * np.log10(total_flux)) if total_flux > 0 else float("inf")


def band_fluxes(
    magnitudes: Mapping[str, float], bands: Bands, zero_point_mag: float
) -> Float64[np.ndarray, " band"]:
    """Fluxes in the order of `bands`."""
    return np.array([flux(magnitudes[band], zero_point_mag) for band in bands])


@lru_cache(maxsize=32)
def _offsets(samples: int) -> Float64[np.ndarray, " samples"]:
    return (np.arange(samples) + 0.5) / samples - 0.5


@dataclass(frozen=True)
class _Grid:
    """Pixel centres in arcsec from the scene's centre. x, y: axes of the image."""

    x: Float64[np.ndarray, " x"]
    y: Float64[np.ndarray, " y"]
    scale: float

    def fine(
        self, rows: slice, columns: slice, samples: int
    ) -> tuple[Float64[np.ndarray, " n"], Float64[np.ndarray, " n"]]:
        step = _offsets(samples) * self.scale
        y = (self.y[rows, None] + step).ravel()
        x = (self.x[columns, None] + step).ravel()
        xx, yy = np.meshgrid(x, y)
        return xx.ravel(), yy.ravel()


def _grid(shape: tuple[int, int], pixel_scale_arcsec: float, centre: tuple[float, float]) -> _Grid:
    """shape (y, x); centre: (x, y) of the scene in pixels of the grid."""
    y = (np.arange(shape[0]) - centre[1]) * pixel_scale_arcsec
    x = (np.arange(shape[1]) - centre[0]) * pixel_scale_arcsec
    return _Grid(x, y, pixel_scale_arcsec)


def _pixels(
    component: Component, grid: _Grid, rows: slice, columns: slice, samples: int
) -> Float64[np.ndarray, "y x"]:
    """Flux per pixel of a profile of unit flux in a part of the grid."""
    x, y = grid.fine(rows, columns, samples)
    light = shapes.surface_brightness(component.profile, component.parameters, x, y)
    n_rows, n_columns = len(grid.y[rows]), len(grid.x[columns])
    cells = light.reshape(n_rows, samples, n_columns, samples).mean(axis=(1, 3))
    return np.asarray(cells * grid.scale**2)


def _cusp(axis: Float64[np.ndarray, " n"], position: float) -> slice:
    nearest = int(np.argmin(np.abs(axis - position)))
    return slice(max(0, nearest - _CUSP_PIXELS), nearest + _CUSP_PIXELS + 1)


def _shape_image(
    component: Component, grid: _Grid, sampling: Sampling
) -> Float64[np.ndarray, "y x"]:
    image = _pixels(component, grid, slice(None), slice(None), sampling.light)
    if component.profile in shapes.OWN or sampling.cusp == sampling.light:
        return image
    rows = _cusp(grid.y, component.parameters.get("center_y", 0.0))
    columns = _cusp(grid.x, component.parameters.get("center_x", 0.0))
    image[rows, columns] = _pixels(component, grid, rows, columns, sampling.cusp)
    return image


def _near_source(
    lens: Lens, bx: Float64[np.ndarray, " n"], by: Float64[np.ndarray, " n"], margin: float
) -> Float64[np.ndarray, " n"]:
    """Which rays of the source plane pass close enough to any part of the source to be bright."""
    near = np.zeros(len(bx), dtype=bool)
    for part in lens.source:
        dx = bx - part.parameters.get("center_x", 0.0)
        dy = by - part.parameters.get("center_y", 0.0)
        reach = margin + shapes.bright_radius_arcsec(part.profile, part.parameters, _FAINT)
        near |= dx**2 + dy**2 < reach**2
    return near


def _source_light(
    lens: Lens,
    bx: Float64[np.ndarray, "*ray"],
    by: Float64[np.ndarray, "*ray"],
    fluxes: Float64[np.ndarray, "part band"],
) -> Float64[np.ndarray, "band pixel"]:
    """Flux per square arcsec of rays (pixel, sub-ray) in the source plane, mean over sub-rays."""
    total = np.zeros((fluxes.shape[1], len(bx)))
    for part, weights in zip(lens.source, fluxes, strict=True):
        light = shapes.surface_brightness(part.profile, part.parameters, bx.ravel(), by.ravel())
        total += np.outer(weights, light.reshape(len(bx), -1).mean(axis=1))
    return total


def _arcs(
    lens: Lens, grid: _Grid, bands: Bands, zero_point_mag: float, samples: int
) -> Float64[np.ndarray, "band y x"]:
    """Lensed source light: one ray per pixel finds the bright pixels, which alone are sampled
    finely. Surface brightness is kept by lensing, and all bands share the rays."""
    fluxes = np.array([band_fluxes(p.magnitudes, bands, zero_point_mag) for p in lens.source])
    xx, yy = (a.ravel() for a in np.meshgrid(grid.x, grid.y))
    bx, by = shoot(lens.mass, xx, yy)
    centre = np.hypot(xx, yy) < 2.0 * grid.scale  # the deflection turns round within a pixel
    chosen = np.flatnonzero(_near_source(lens, bx, by, grid.scale) | centre)
    image = _source_light(lens, bx[:, None], by[:, None], fluxes)
    step = _offsets(samples) * grid.scale
    sy, sx = (a.ravel() for a in np.meshgrid(step, step, indexing="ij"))
    x, y = xx[chosen, None] + sx, yy[chosen, None] + sy
    bx, by = (b.reshape(x.shape) for b in shoot(lens.mass, x.ravel(), y.ravel()))
    image[:, chosen] = _source_light(lens, bx, by, fluxes)
    return image.reshape(len(bands), len(grid.y), len(grid.x)) * grid.scale**2


def _centre(shape: tuple[int, int], centre: tuple[float, float] | None) -> tuple[float, float]:
    return centre or ((shape[1] - 1) / 2, (shape[0] - 1) / 2)


def render_light(
    components: Sequence[Component],
    bands: Bands,
    shape: tuple[int, int],
    pixel_scale_arcsec: float,
    zero_point_mag: float,
    *,
    sampling: Sampling = ADAPTIVE,
    centre: tuple[float, float] | None = None,
) -> Float32[np.ndarray, "band y x"]:
    """Extended light, no PSF; each profile is evaluated once for all bands.

    shape: (y, x) pixels; centre: (x, y) of the scene in pixels, default the middle of the grid.
    """
    grid = _grid(shape, pixel_scale_arcsec, _centre(shape, centre))
    image = np.zeros((len(bands), *shape), dtype=np.float32)
    for component in components:
        unit = _shape_image(component, grid, sampling).astype(np.float32)
        fluxes = band_fluxes(component.magnitudes, bands, zero_point_mag).astype(np.float32)
        image += fluxes[:, None, None] * unit
    return image


def render_arcs(
    lens: Lens,
    bands: Bands,
    shape: tuple[int, int],
    pixel_scale_arcsec: float,
    zero_point_mag: float,
    *,
    sampling: Sampling = ADAPTIVE,
    centre: tuple[float, float] | None = None,
) -> Float32[np.ndarray, "band y x"]:
    """The lensed source alone, no PSF; arguments as `render_light`."""
    grid = _grid(shape, pixel_scale_arcsec, _centre(shape, centre))
    return _arcs(lens, grid, bands, zero_point_mag, sampling.arcs).astype(np.float32)


def render(
    scene: Scene,
    bands: Bands,
    size_pixels: int,
    pixel_scale_arcsec: float,
    zero_point_mag: float,
    *,
    sampling: Sampling = ADAPTIVE,
    centre: tuple[float, float] | None = None,
) -> Float32[np.ndarray, "band y x"]:
    """A square stamp of a scene's extended light and arcs: flux per pixel, noiseless, no PSF.

    Stars are not in it: they are `point_fluxes`, for the caller to lay PSF images.
    """
    shape = (size_pixels, size_pixels)
    where = _centre(shape, centre)
    common = (tuple(bands), shape, pixel_scale_arcsec, zero_point_mag)
    image = render_light(scene.components, *common, sampling=sampling, centre=where)
    if scene.lens is not None:
        image += render_arcs(scene.lens, *common, sampling=sampling, centre=where)
    return image


def point_fluxes(
    scene: Scene,
    bands: Bands,
    pixel_scale_arcsec: float,
    zero_point_mag: float,
    centre: tuple[float, float],
) -> list[tuple[float, float, Float64[np.ndarray, " band"]]]:
    """(x, y, flux per band) of a scene's stars, x and y in pixels; centre as in `render`."""
    return [
        (
            centre[0] + point.x_arcsec / pixel_scale_arcsec,
            centre[1] + point.y_arcsec / pixel_scale_arcsec,
            band_fluxes(point.magnitudes, bands, zero_point_mag),
        )
        for point in scene.points
    ]


def render_onto(
    tile: Float32[np.ndarray, "band y x"],
    scene: Scene,
    bands: Bands,
    centre: tuple[float, float],
    *,
    pixel_scale_arcsec: float,
    zero_point_mag: float,
    sampling: Sampling = ADAPTIVE,
    max_size_pixels: int = 129,
) -> None:
    """Add a scene's extended light to a large image in place; what falls outside is dropped.

    centre: (x, y) of the scene in pixels of the tile. The tile is convolved with its PSF after
    all scenes are on it; stars are laid by the caller from `point_fluxes`.
    """
    size = min(max_size_pixels, 2 * int(np.ceil(scene.reach_arcsec / pixel_scale_arcsec)) + 1)
    x0, y0 = (round(c) - size // 2 for c in centre)
    stamp = render(
        scene,
        bands,
        size,
        pixel_scale_arcsec,
        zero_point_mag,
        sampling=sampling,
        centre=(centre[0] - x0, centre[1] - y0),
    )
    top, left = max(0, y0), max(0, x0)
    bottom, right = min(tile.shape[1], y0 + size), min(tile.shape[2], x0 + size)
    if top < bottom and left < right:
        tile[:, top:bottom, left:right] += stamp[:, top - y0 : bottom - y0, left - x0 : right - x0]
