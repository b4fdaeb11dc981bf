"""Training examples from real pixels: arcs painted on real galaxies, and real non-lenses."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from training.simulate import real
from training.simulate.aim import NATURAL, Aim
from training.simulate.instrument import Instrument
from training.simulate.lens import Arcs, Visible, draw_arcs
from training.simulate.observe import Conditions, draw_conditions, fwhm_pixels
from training.simulate.real import RealHost
from training.simulate.source import SourceStamp

if TYPE_CHECKING:
    from jaxtyping import Float32

# Painted light below this part of the sky's rms is not painted: it could not be seen, and the
# host's own pixels stay as they are.
_FAINTEST_PAINT = 0.02
_TRIES = 60


@dataclass(frozen=True)
class Crop:
    """A stamp of a real frame after one of the square's eight symmetries; centre (x, y) pixels."""

    image: Float32[np.ndarray, "band y x"]
    centre: tuple[float, float]
    shape: tuple[float, float]


def crop(
    rng: np.random.Generator,
    host: RealHost,
    at: tuple[float, float],
    size_pixels: int,
    max_shift_pixels: int,
) -> Crop:
    """Cut a stamp around `at` (x, y), moved by whole pixels and flipped or rotated at random.

    No pixel is interpolated, so the noise keeps its correlation. The frame must hold the stamp.
    """
    height, width = host.frame.shape[1:]
    shift = rng.integers(-max_shift_pixels, max_shift_pixels + 1, size=2)
    left = int(np.clip(round(at[0]) + shift[0] - size_pixels // 2, 0, width - size_pixels))
    top = int(np.clip(round(at[1]) + shift[1] - size_pixels // 2, 0, height - size_pixels))
    image = host.frame[:, top : top + size_pixels, left : left + size_pixels]
    x, y = at[0] - left, at[1] - top
    e1, e2 = host.shape
    if rng.random() < 0.5:
        image, x, e2 = image[:, :, ::-1], size_pixels - 1 - x, -e2
    for _ in range(rng.integers(0, 4)):
        # np.rot90 over (y, x) carries pixel (x, y) to (y, size - 1 - x).
        image = np.rot90(image, axes=(1, 2))
        x, y = y, size_pixels - 1 - x
        e1, e2 = -e1, -e2
    return Crop(np.array(image, order="C"), (x, y), (e1, e2))


def conditions_of(rng: np.random.Generator, host: RealHost, instrument: Instrument) -> Conditions:
    """The host's own noise, and its own PSF where the survey gives it; else the seeing is drawn,
    for its frame need not hold a star."""
    drawn = draw_conditions(rng, instrument)
    own = replace(drawn, sky_rms=host.sky_rms, electrons=host.electrons)
    if host.psf is None:
        return own
    fwhm = np.array([fwhm_pixels(psf) for psf in host.psf]) * instrument.pixel_scale_arcsec
    return replace(own, psf=host.psf, fwhm_arcsec=fwhm, ellipticity=np.zeros((len(fwhm), 2)))


def paint(
    rng: np.random.Generator,
    image: Float32[np.ndarray, "band y x"],
    arcs: Float32[np.ndarray, "band y x"],
    seen: Conditions,
) -> Float32[np.ndarray, "band y x"]:
    """The image with arcs (convolved) and the arcs' own Poisson noise added."""
    faintest = _FAINTEST_PAINT * seen.sky_rms.astype(np.float32)[:, None, None]
    light = np.where(arcs > faintest, arcs, np.float32(0.0))
    electrons = seen.electrons.astype(np.float32)[:, None, None]
    noise = np.sqrt(light / electrons) * rng.standard_normal(image.shape, dtype=np.float32)
    return np.asarray(image + light + noise, dtype=np.float32)


@dataclass(frozen=True)
class Painted:
    """A real galaxy with arcs on it; centre (x, y) of the galaxy in pixels."""

    image: Float32[np.ndarray, "band y x"]
    arcs: Arcs
    seen: Conditions
    centre: tuple[float, float]


def painted_lens(
    rng: np.random.Generator,
    host: RealHost,
    instrument: Instrument,
    *,
    visible: Visible,
    size_pixels: int,
    max_shift_pixels: int,
    stamps: Sequence[SourceStamp] = (),
    aim: Aim = NATURAL,
) -> Painted | None:
    """A real galaxy with simulated arcs; None where the sources drawn behind it stay invisible."""
    cut = crop(rng, host, host.centre, size_pixels, max_shift_pixels)
    seen = conditions_of(rng, host, instrument)
    for _ in range(_TRIES):
        model = replace(real.as_lens_host(rng, host), shape=cut.shape)
        arcs = draw_arcs(
            rng,
            model,
            cut.image,
            instrument,
            seen,
            visible=visible,
            centre=cut.centre,
            stamps=stamps,
            aim=aim,
        )
        if arcs is not None:
            return Painted(paint(rng, cut.image, arcs.blurred, seen), arcs, seen, cut.centre)
    return None


def real_negative(
    rng: np.random.Generator, host: RealHost, size_pixels: int, max_shift_pixels: int
) -> tuple[Float32[np.ndarray, "band y x"], bool]:
    """A real non-lens: the host itself, or another galaxy or star of its frame (True)."""
    half = size_pixels // 2 + max_shift_pixels
    height, width = host.frame.shape[1:]
    x, y = host.neighbours[:, 0], host.neighbours[:, 1]
    inside = (x >= half) & (x < width - half) & (y >= half) & (y < height - half)
    others = host.neighbours[inside]
    if len(others) and rng.random() < 0.4:
        at = others[rng.integers(len(others))]
        place = (float(at[0]), float(at[1]))
        return crop(rng, host, place, size_pixels, max_shift_pixels).image, True
    return crop(rng, host, host.centre, size_pixels, max_shift_pixels).image, False
