"""From noiseless flux to the pixels of a coadd tile: seeing, noise, full wells, dead columns."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Bool, Float32, Float64, UInt8
from scipy import ndimage

from training.simulate.instrument import Instrument
from training.simulate.observe import (
    Conditions,
    add_noise,
    convolve,
    draw_conditions,
    psf_image,
    saturate,
)
from training.simulate.tiles import BAD_COLUMN, BRIGHT_STAR, SATURATED, Exposure

# Half-width of the PSF images: bright stars show their wings 16 arcsec out.
PSF_HALF_PIXELS = 64
# Pixels of noiseless light beyond a tile's edge: what a large galaxy and the PSF bring in.
MARGIN_PIXELS = 128
HALO_PIXELS = 24
LANCZOS = 4
# Zero points of single tiles scatter so much about exposure time alone (mag).
ZERO_POINT_SCATTER_MAG = 0.05


@dataclass(frozen=True)
class Observation:
    """How all bands of one tile were observed."""

    conditions: Conditions
    exposures: tuple[Exposure, ...]


def draw_observation(rng: np.random.Generator, instrument: Instrument) -> Observation:
    """Seeing, depth, exposure time and zero point of one tile."""
    drawn = draw_conditions(rng, instrument)
    wide = replace(drawn, psf=_wide_psf(rng, instrument, drawn.fwhm_arcsec))
    return Observation(
        wide,
        tuple(_exposure(rng, instrument, wide, k) for k in range(len(instrument.bands))),
    )


def _wide_psf(
    rng: np.random.Generator, instrument: Instrument, fwhm_arcsec: Float64[np.ndarray, " band"]
) -> Float32[np.ndarray, "band y x"]:
    images = []
    for band, fwhm in zip(instrument.bands, fwhm_arcsec, strict=True):
        psf = instrument.psf[band]
        modulus, angle = rng.uniform(0, psf.max_ellipticity), rng.uniform(0, 2 * np.pi)
        images.append(
            psf_image(
                float(fwhm),
                psf.moffat_beta,
                instrument.pixel_scale_arcsec,
                e1=modulus * np.cos(angle),
                e2=modulus * np.sin(angle),
                size_pixels=2 * PSF_HALF_PIXELS + 1,
            )
        )
    return np.stack(images)


def _exposure(
    rng: np.random.Generator, instrument: Instrument, conditions: Conditions, k: int
) -> Exposure:
    band = instrument.bands[k]
    exptime = float(np.round(instrument.noise[band].exposure_s * rng.uniform(0.8, 1.2), 1))
    offset = ZERO_POINT_SCATTER_MAG * rng.standard_normal()
    zero_point = float(np.round(25.0 + 2.5 * np.log10(exptime) + offset, 4))
    counts = 10 ** (0.4 * (zero_point - instrument.zero_point_mag))
    return Exposure(
        band=band,
        zero_point_mag=zero_point,
        exptime_s=exptime,
        gain=float(conditions.electrons[k] / counts),
        psf_fwhm_arcsec=float(conditions.fwhm_arcsec[k]),
        background_rms=float(conditions.sky_rms[k] * counts),
        saturation=instrument.saturation_flux * counts,
    )


def expose(
    rng: np.random.Generator,
    flux: Float32[np.ndarray, "band y x"],
    instrument: Instrument,
    observation: Observation,
) -> tuple[Float32[np.ndarray, "band y x"], UInt8[np.ndarray, "band y x"]]:
    """Counts and mask of a tile from noiseless flux with `MARGIN_PIXELS` more on every side.

    Full wells and their trails are NaN; dead columns stay wrong numbers under the mask.
    """
    inner = slice(MARGIN_PIXELS, -MARGIN_PIXELS)
    seen = convolve(flux, observation.conditions.psf)[:, inner, inner]
    spilled = saturate(seen, instrument.saturation_flux)
    noisy = add_noise(rng, spilled, instrument, observation.conditions)
    columns = draw_bad_columns(rng, flux.shape[2] - 2 * MARGIN_PIXELS)
    counts, masks = np.empty_like(noisy), np.zeros(noisy.shape, dtype=np.uint8)
    for k, exposure in enumerate(observation.exposures):
        scale = 10 ** (0.4 * (exposure.zero_point_mag - instrument.zero_point_mag))
        full = spilled[k] >= 0.999 * instrument.saturation_flux
        counts[k] = noisy[k] * np.float32(scale)
        masks[k] = _mask(full)
        for column, rows in columns:
            counts[k, rows, column] = -20 * exposure.background_rms
            masks[k, rows, column] |= BAD_COLUMN
        counts[k, full] = np.nan
    return counts, masks


def _mask(full: Bool[np.ndarray, "y x"]) -> UInt8[np.ndarray, "y x"]:
    mask = np.where(full, SATURATED, 0).astype(np.uint8)
    if full.any():
        mask[ndimage.distance_transform_edt(~full) < HALO_PIXELS] |= BRIGHT_STAR
    return mask


def draw_bad_columns(rng: np.random.Generator, side: int) -> list[tuple[int, slice]]:
    """Dead columns that dithering did not fill: (column, rows), about one per 500 columns."""
    columns = []
    for _ in range(int(rng.poisson(side / 500)) + 1):
        start, stop = np.sort(rng.integers(0, side, size=2))
        columns.append((int(rng.integers(0, side)), slice(int(start), int(stop) + 1)))
    return columns


def lanczos_weights(offset: float) -> Float64[np.ndarray, " w"]:
    """Weights of the pixels round a point; offset: where it lies from the first pixel's centre."""
    distance = np.arange(2 * LANCZOS) - offset
    weights = np.sinc(distance) * np.sinc(distance / LANCZOS)
    return np.asarray(weights / weights.sum())


def lay_point(
    canvas: Float32[np.ndarray, "band y x"],
    position: tuple[float, float],
    fluxes: Float64[np.ndarray, " band"],
) -> None:
    """Add a star at (x, y) to an image that the PSF is still to be laid over.

    Lanczos weights stand for a point between pixels: with a PSF of over three pixels FWHM, what
    comes out of the convolution is the shifted PSF to better than 1% of its peak. All tiles that
    show the star then do so with their own PSF.
    """
    x0, y0 = (int(np.floor(p)) - LANCZOS + 1 for p in position)
    size = 2 * LANCZOS
    if x0 < 0 or y0 < 0 or x0 + size > canvas.shape[2] or y0 + size > canvas.shape[1]:
        return
    kernel = np.outer(lanczos_weights(position[1] - y0), lanczos_weights(position[0] - x0))
    canvas[:, y0 : y0 + size, x0 : x0 + size] += (fluxes[:, None, None] * kernel).astype(np.float32)
