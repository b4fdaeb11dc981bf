"""A scene and its neighbours on one pixel grid: noiseless light, and the image that is observed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from lenspipe.errors import InputError
from training.simulate import arc_truth
from training.simulate.instrument import ONLY_GRID, Instrument
from training.simulate.lens import blurred_arcs
from training.simulate.observe import (
    Conditions,
    add_noise,
    add_points,
    draw_conditions,
    saturate,
    signal_to_noise,
    stamp_after_psf,
    wide_psf,
)
from training.simulate.scene import Scene, point_fluxes, render, render_onto

if TYPE_CHECKING:
    from jaxtyping import Float32

SMALLEST_PIXELS, LARGEST_PIXELS = 16, 256
# Stars brighter than this show beyond the 4 arcsec that the common PSF image reaches.
_WINGS_MAG = 18.0
# Neighbours are drawn this far out at least (pixels), so that their edge is not seen.
_NEIGHBOUR_PIXELS = 129


@dataclass(frozen=True)
class Placed:
    """A scene at (x, y) in pixels of a grid."""

    scene: Scene
    centre: tuple[float, float]


@dataclass(frozen=True)
class Seen:
    """A scene on one grid: the image, truth of its bands, and of a lens the noiseless arcs."""

    image: Float32[np.ndarray, "band y x"]
    truth: dict[str, float]
    arcs: Float32[np.ndarray, "band y x"] | None


@dataclass(frozen=True)
class View:
    """One grid of an instrument with the stamp's side on it. name: see `instrument.load_grids`."""

    name: str
    instrument: Instrument
    size_pixels: int

    @property
    def dataset(self) -> str:
        """What the stamps on this grid are called in a set."""
        return "images" if self.name == ONLY_GRID else f"images_{self.name}"

    def moved(
        self, main: View, centre: tuple[float, float], phase: tuple[float, float]
    ) -> tuple[float, float]:
        """(x, y) on this grid of a place on the main one.

        Both stamps are cut about the same position, which is pixel `size // 2` of each; where in
        that pixel it lies, the phase, has nothing to do with the other grid's.
        """
        ratio = main.instrument.pixel_scale_arcsec / self.instrument.pixel_scale_arcsec
        x, y = (
            self.size_pixels // 2 + (at - main.size_pixels // 2) * ratio + part
            for at, part in zip(centre, phase, strict=True)
        )
        return x, y

    def light(
        self, scene: Scene, seen: Conditions, centre: tuple[float, float]
    ) -> Float32[np.ndarray, "band y x"]:
        """A scene's light after the PSF."""
        step, zero = self.instrument.pixel_scale_arcsec, self.instrument.zero_point_mag
        bands = self.instrument.bands

        def sharp(margin: int) -> Float32[np.ndarray, "band y x"]:
            side, at = self.size_pixels + 2 * margin, _moved(centre, margin)
            return render(scene, bands, side, step, zero, centre=at)

        light = stamp_after_psf(sharp, seen.psf) if scene.components else sharp(0)
        points = point_fluxes(scene, bands, step, zero, centre)
        add_points(light, self._point_psf(scene, seen), points)
        return light

    def _point_psf(self, scene: Scene, seen: Conditions) -> Float32[np.ndarray, "band y x"]:
        """The PSF out to where a star's wings sink in the noise."""
        if min(scene.magnitudes.values()) > _WINGS_MAG:
            return seen.psf
        return wide_psf(self.instrument, seen, 2 * self.size_pixels + 1)

    def neighbours(
        self, placed: Sequence[Placed], seen: Conditions
    ) -> Float32[np.ndarray, "band y x"]:
        """Light of other objects after the PSF."""
        size, bands = self.size_pixels, self.instrument.bands
        step, zero = self.instrument.pixel_scale_arcsec, self.instrument.zero_point_mag

        def sharp(margin: int) -> Float32[np.ndarray, "band y x"]:
            side = size + 2 * margin
            onto = np.zeros((len(bands), side, side), dtype=np.float32)
            for one in placed:
                if one.scene.components:
                    render_onto(
                        onto,
                        one.scene,
                        bands,
                        _moved(one.centre, margin),
                        pixel_scale_arcsec=step,
                        zero_point_mag=zero,
                        max_size_pixels=max(_NEIGHBOUR_PIXELS, 2 * side + 1),
                    )
            return onto

        points = [
            p for one in placed for p in point_fluxes(one.scene, bands, step, zero, one.centre)
        ]
        light = stamp_after_psf(sharp, seen.psf) if len(placed) > len(points) else sharp(0)
        add_points(light, seen.psf, points)
        return light

    def observed(
        self,
        rng: np.random.Generator,
        scene: Scene,
        light: Float32[np.ndarray, "band y x"],
        seen: Conditions,
    ) -> Float32[np.ndarray, "band y x"]:
        """The image of noiseless light; a saturated star bleeds."""
        if scene.kind == "saturated_star":
            light = saturate(light, self.instrument.saturation_flux)
        return add_noise(rng, light, self.instrument, seen)

    def conditions_truth(self, seen: Conditions) -> dict[str, float]:
        """Seeing and sky of each band."""
        return {
            f"{name}_{band}": float(values[k])
            for name, values in (("psf_fwhm_arcsec", seen.fwhm_arcsec), ("sky_rms", seen.sky_rms))
            for k, band in enumerate(self.instrument.bands)
        }

    def look(
        self, rng: np.random.Generator, main: View, object_: Placed, others: Sequence[Placed]
    ) -> Seen:
        """What was drawn for the main grid, seen on this one under conditions of its own."""
        seen = draw_conditions(rng, self.instrument)
        phase_x, phase_y = rng.uniform(-0.5, 0.5, size=2)
        phase = (float(phase_x), float(phase_y))
        centre = self.moved(main, object_.centre, phase)
        beside = [Placed(one.scene, self.moved(main, one.centre, phase)) for one in others]
        light = self.light(object_.scene, seen, centre)
        image = self.observed(rng, object_.scene, light + self.neighbours(beside, seen), seen)
        arcs = self._arcs(object_.scene, seen, centre)
        truth = self.conditions_truth(seen)
        if arcs is not None:
            truth |= self._arc_truth(arcs, light, seen, centre)
        return Seen(image, truth, arcs)

    def _arcs(
        self, scene: Scene, seen: Conditions, centre: tuple[float, float]
    ) -> Float32[np.ndarray, "band y x"] | None:
        if scene.lens is None:
            return None
        shape = (self.size_pixels, self.size_pixels)
        return blurred_arcs(scene.lens, self.instrument, seen.psf, shape, centre)[1]

    def _arc_truth(
        self,
        arcs: Float32[np.ndarray, "band y x"],
        light: Float32[np.ndarray, "band y x"],
        seen: Conditions,
        centre: tuple[float, float],
    ) -> dict[str, float]:
        """S/N and contrast per band, as the lens's own grid has them."""
        bands = self.instrument.bands
        snr = signal_to_noise(arcs, light, seen)
        step = self.instrument.pixel_scale_arcsec
        contrast = arc_truth.contrast(arcs, light - arcs, centre, step)
        return {
            **{f"arc_snr_{b}": float(s) for b, s in zip(bands, snr, strict=True)},
            **{f"source_lens_contrast_{b}": float(c) for b, c in zip(bands, contrast, strict=True)},
        }


def _moved(centre: tuple[float, float], margin: int) -> tuple[float, float]:
    """(x, y) on the same grid with some pixels more on each side."""
    return centre[0] + margin, centre[1] + margin


def views_of(
    grids: dict[str, Instrument], size_pixels: int, size_arcsec: float | None
) -> tuple[View, ...]:
    """The grids of an instrument with the side of a stamp on each, the main grid first.

    size_arcsec: of the sky, whole pixels that fit into it on each grid; None: size_pixels, for an
    instrument with one grid. InputError: a size is missing, too small or too large.
    """
    if size_arcsec is None:
        if len(grids) > 1:
            raise InputError("size_arcsec", f"a size for the grids {', '.join(grids)}", "none")
        return tuple(View(name, grid, size_pixels) for name, grid in grids.items())
    return tuple(
        View(name, grid, _side(name, size_arcsec, grid.pixel_scale_arcsec))
        for name, grid in grids.items()
    )


def _side(name: str, size_arcsec: float, pixel_scale_arcsec: float) -> int:
    side = int(size_arcsec / pixel_scale_arcsec + 1e-6)
    if not SMALLEST_PIXELS <= side <= LARGEST_PIXELS:
        expected = f"{SMALLEST_PIXELS} to {LARGEST_PIXELS} pixels on grid {name}"
        raise InputError("size_arcsec", expected, f"{size_arcsec} arcsec, {side} pixels")
    return side
