"""Turns noiseless light into an image: PSF, sky noise, photon noise, full wells."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np
from scipy.fft import fft2, irfft2, next_fast_len, rfft2

from training.simulate.instrument import Instrument, load_instrument

if TYPE_CHECKING:
    from jaxtyping import Float32, Float64

# Side of a Moffat PSF's image, and samples across its FWHM at least.
_PSF_PIXELS = 33
_SAMPLES_PER_FWHM = 4
# Part of a PSF's light that need not be carried into a stamp from outside, and the most pixels
# around it that are rendered for the rest.
_LEFT_OUT = 0.01
_WIDEST_MARGIN = 16


@dataclass(frozen=True)
class Conditions:
    """What one image was taken with: PSF images (band, y, x) that sum to 1, sky_rms and background
    per band (flux per pixel), electrons per flux unit and band."""

    psf: Float32[np.ndarray, "band y x"]
    fwhm_arcsec: Float64[np.ndarray, " band"]
    ellipticity: Float64[np.ndarray, "band 2"]
    sky_rms: Float64[np.ndarray, " band"]
    background: Float64[np.ndarray, " band"]
    electrons: Float64[np.ndarray, " band"]


def psf_image(
    fwhm_arcsec: float,
    moffat_beta: float,
    pixel_scale_arcsec: float,
    *,
    e1: float = 0.0,
    e2: float = 0.0,
    size_pixels: int = _PSF_PIXELS,
) -> Float32[np.ndarray, "y x"]:
    """A Moffat PSF that sums to 1 on an odd grid, integrated over each pixel."""
    samples = max(2, int(np.ceil(_SAMPLES_PER_FWHM * pixel_scale_arcsec / fwhm_arcsec)))
    half = size_pixels / 2
    axis = ((np.arange(size_pixels * samples) + 0.5) / samples - half) * pixel_scale_arcsec
    x, y = np.meshgrid(axis, axis)
    u = (1 - e1) * x - e2 * y
    v = (1 + e1) * y - e2 * x
    alpha = fwhm_arcsec / (2.0 * np.sqrt(2.0 ** (1.0 / moffat_beta) - 1.0))
    fine = (1.0 + (u**2 + v**2) / alpha**2) ** -moffat_beta
    image = fine.reshape(size_pixels, samples, size_pixels, samples).sum(axis=(1, 3))
    return np.asarray(image / image.sum(), dtype=np.float32)


def draw_conditions(rng: np.random.Generator, instrument: Instrument) -> Conditions:
    """Seeing, sky level and background residual of one image, drawn from the instrument."""
    n = len(instrument.bands)
    psfs = [instrument.psf[band] for band in instrument.bands]
    noises = [instrument.noise[band] for band in instrument.bands]
    # Nights are good or bad for all bands together: half of the seeing's variance is shared.
    deviates = (rng.normal() + rng.normal(size=n)) / np.sqrt(2.0)
    fwhm = np.array(
        [
            p.fwhm_arcsec * np.exp(d * p.scatter_arcsec / p.fwhm_arcsec)
            for p, d in zip(psfs, deviates, strict=True)
        ]
    )
    modulus = rng.uniform(0, [p.max_ellipticity for p in psfs])
    angle = rng.uniform(0, 2 * np.pi, size=n)
    shape = np.stack([modulus * np.cos(angle), modulus * np.sin(angle)], axis=1)
    fwhm = _seen_fwhm(instrument, fwhm)
    common = instrument.common_scatter_dex
    own = np.sqrt(np.maximum(np.array([q.scatter_dex for q in noises]) ** 2 - common**2, 0.0))
    dex = common * rng.normal() + own * rng.normal(size=n)
    return Conditions(
        _kernels(instrument, fwhm, shape, _psf_size(instrument)),
        fwhm,
        shape,
        np.array([instrument.sky_rms(band) for band in instrument.bands]) * 10.0**dex,
        rng.normal(size=n) * [q.background_rms for q in noises],
        np.array([q.electrons for q in noises]),
    )


def _psf_size(instrument: Instrument) -> int:
    images = [instrument.psf_pixels(band) for band in instrument.bands]
    return max([_PSF_PIXELS, *(len(image) for image in images if image is not None)])


def _seen_fwhm(
    instrument: Instrument, drawn: Float64[np.ndarray, " band"]
) -> Float64[np.ndarray, " band"]:
    """FWHM in arcsec: what was drawn, or that of the band's PSF image."""
    images = [instrument.psf_pixels(band) for band in instrument.bands]
    step = instrument.pixel_scale_arcsec
    return np.array(
        [
            width if image is None else fwhm_pixels(image) * step
            for image, width in zip(images, drawn, strict=True)
        ]
    )


def fwhm_pixels(psf: Float32[np.ndarray, "y x"]) -> float:
    """Diameter of the circle with the area above half of the peak, by bilinear interpolation."""
    rows = np.linspace(0, psf.shape[0] - 1, 8 * psf.shape[0])
    columns = np.linspace(0, psf.shape[1] - 1, 8 * psf.shape[1])
    along = np.stack([np.interp(columns, np.arange(psf.shape[1]), row) for row in psf])
    fine = np.stack([np.interp(rows, np.arange(psf.shape[0]), column) for column in along.T])
    cell = (rows[1] - rows[0]) * (columns[1] - columns[0])
    return 2.0 * float(np.sqrt((fine > psf.max() / 2).sum() * cell / np.pi))


def _kernels(
    instrument: Instrument,
    fwhm_arcsec: Float64[np.ndarray, " band"],
    shape: Float64[np.ndarray, "band 2"],
    size_pixels: int,
) -> Float32[np.ndarray, "band y x"]:
    """PSF images of one odd size: of each band its own image, or a Moffat profile."""
    step = instrument.pixel_scale_arcsec
    kernels = []
    for band, width, (e1, e2) in zip(instrument.bands, fwhm_arcsec, shape, strict=True):
        image = instrument.psf_pixels(band)
        if image is None:
            beta = instrument.psf[band].moffat_beta
            image = psf_image(width, beta, step, e1=e1, e2=e2, size_pixels=size_pixels)
        kernels.append(_resized(image, size_pixels))
    return np.stack(kernels)


def _resized(image: Float32[np.ndarray, "y x"], size_pixels: int) -> Float32[np.ndarray, "y x"]:
    """An odd image cut or padded with zeros about its middle; sum 1."""
    grow = max(0, (size_pixels - len(image)) // 2)
    cut = max(0, (len(image) - size_pixels) // 2)
    inner = slice(cut, len(image) - cut)
    changed = np.pad(image[inner, inner], grow)
    return np.asarray(changed / changed.sum() if cut else changed, dtype=np.float32)


def wide_psf(
    instrument: Instrument, conditions: Conditions, size_pixels: int
) -> Float32[np.ndarray, "band y x"]:
    """The PSF of the same image on a larger grid, for bright stars; size odd."""
    return _kernels(instrument, conditions.fwhm_arcsec, conditions.ellipticity, size_pixels)


@lru_cache(maxsize=16)
def typical_conditions(instrument: Instrument | str) -> Conditions:
    """Median seeing and sky of an instrument, or of a shipped one by its name: no ellipticity, no
    background."""
    if isinstance(instrument, str):
        return typical_conditions(load_instrument(instrument))
    bands = instrument.bands
    fwhm = _seen_fwhm(instrument, np.array([instrument.psf[band].fwhm_arcsec for band in bands]))
    round_ = np.zeros((len(bands), 2))
    return Conditions(
        _kernels(instrument, fwhm, round_, _psf_size(instrument)),
        fwhm,
        round_,
        np.array([instrument.sky_rms(band) for band in bands]),
        np.zeros(len(bands)),
        np.array([instrument.noise[band].electrons for band in bands]),
    )


def convolve(
    image: Float32[np.ndarray, "band y x"], psf: Float32[np.ndarray, "band py px"]
) -> Float32[np.ndarray, "band y x"]:
    """Each band with its PSF (odd size, centred), same shape; no light comes from outside."""
    height, width = image.shape[1:]
    half_y, half_x = psf.shape[1] // 2, psf.shape[2] // 2
    # Wrapped light may fall on the half-PSF beyond the image, never on the image itself.
    # A stamp may be smaller than half of the PSF.
    least = max(height + half_y, psf.shape[1]), max(width + half_x, psf.shape[2])
    shape = (next_fast_len(least[0], real=True), next_fast_len(least[1], real=True))
    kernel = np.zeros((len(psf), *shape), dtype=np.float32)
    kernel[:, : psf.shape[1], : psf.shape[2]] = psf
    kernel = np.roll(kernel, (-half_y, -half_x), axis=(1, 2))
    blurred = irfft2(rfft2(image, shape) * rfft2(kernel, shape), shape)
    return np.asarray(blurred[:, :height, :width], dtype=np.float32)


def stamp_after_psf(
    render: Callable[[int], Float32[np.ndarray, "band y x"]],
    psf: Float32[np.ndarray, "band py px"],
) -> Float32[np.ndarray, "band y x"]:
    """A stamp after the PSF, with what the PSF carries in from outside of it.

    render: margin -> light without PSF on the stamp and so many pixels more on each side.
    """
    margin = margin_pixels(psf)
    wide = convolve(render(margin), psf)
    return np.ascontiguousarray(wide[:, margin:-margin, margin:-margin])


def margin_pixels(psf: Float32[np.ndarray, "band py px"]) -> int:
    """Half the side of the square around the PSF's middle that holds all but `_LEFT_OUT` of its
    light in every band; `_WIDEST_MARGIN` at most, and one pixel at least."""
    half_y, half_x = psf.shape[1] // 2, psf.shape[2] // 2
    y, x = np.ogrid[: psf.shape[1], : psf.shape[2]]
    ring = np.maximum(np.abs(y - half_y), np.abs(x - half_x)).ravel()
    held = [np.cumsum(np.bincount(ring, weights=band.ravel())) for band in psf]
    needed = [int(np.searchsorted(total, (1.0 - _LEFT_OUT) * total[-1])) for total in held]
    return int(np.clip(max(needed), 1, _WIDEST_MARGIN))


def add_points(
    image: Float32[np.ndarray, "band y x"],
    psf: Float32[np.ndarray, "band py px"],
    points: Sequence[tuple[float, float, Float64[np.ndarray, " band"]]],
) -> None:
    """Lay PSF images of stars (x, y in pixels, flux per band) onto a convolved image, in place."""
    height, width = image.shape[1:]
    half_y, half_x = psf.shape[1] // 2, psf.shape[2] // 2
    for x, y, fluxes in points:
        column, row = int(np.floor(x)), int(np.floor(y))
        moved = _shift(psf, y - row, x - column)
        top, left = max(0, row - half_y), max(0, column - half_x)
        bottom, right = min(height, row + half_y + 2), min(width, column + half_x + 2)
        if top >= bottom or left >= right:
            continue
        rows = slice(top - row + half_y, bottom - row + half_y)
        columns = slice(left - column + half_x, right - column + half_x)
        weights = fluxes.astype(np.float32)[:, None, None]
        image[:, top:bottom, left:right] += weights * moved[:, rows, columns]


def _shift(
    image: Float32[np.ndarray, "band y x"], dy: float, dx: float
) -> Float32[np.ndarray, "band y1 x1"]:
    """Bilinear shift by a part of a pixel, one row and column larger; keeps the sum."""
    padded = np.pad(image, ((0, 0), (0, 1), (0, 1)))
    rows = (1 - dy) * padded + dy * np.roll(padded, 1, axis=1)
    return np.asarray((1 - dx) * rows + dx * np.roll(rows, 1, axis=2), dtype=np.float32)


@lru_cache(maxsize=16)
def _amplitude(
    correlation: tuple[tuple[float, ...], ...], shape: tuple[int, int]
) -> Float32[np.ndarray, "y x"]:
    """Square root of the power spectrum of noise with this autocorrelation and unit variance."""
    table = np.array(correlation)
    lags = np.zeros(shape)
    rows, columns = table.shape
    for i in range(min(rows, shape[0] // 2)):
        for j in range(min(columns, shape[1] // 2)):
            for si, sj in ((i, j), (-i, j), (i, -j), (-i, -j)):
                lags[si, sj] = table[i, j]
    power = np.maximum(fft2(lags).real, 0.0)
    half = power[:, : shape[1] // 2 + 1]
    return np.asarray(np.sqrt(half / power.mean()), dtype=np.float32)


def sky_noise(
    rng: np.random.Generator, instrument: Instrument, shape: tuple[int, int, int]
) -> Float32[np.ndarray, "band y x"]:
    """Gaussian noise of unit variance with the stack's pixel-to-pixel correlation."""
    white = rng.standard_normal(shape, dtype=np.float32)
    amplitude = _amplitude(instrument.noise_correlation, shape[1:])
    return np.asarray(irfft2(rfft2(white) * amplitude, shape[1:]), dtype=np.float32)


def add_noise(
    rng: np.random.Generator,
    image: Float32[np.ndarray, "band y x"],
    instrument: Instrument,
    conditions: Conditions,
) -> Float32[np.ndarray, "band y x"]:
    """The image with sky noise, the sources' Poisson noise and the background residual.

    Variance of a pixel: sky_rms^2 + flux / electrons. The Poisson part is drawn as a Gaussian
    (lenstronomy's `Observation` does likewise); it is not correlated, as only the sky's
    correlation was measured.
    """
    rms = conditions.sky_rms.astype(np.float32)[:, None, None]
    electrons = conditions.electrons.astype(np.float32)[:, None, None]
    poisson = np.sqrt(np.maximum(image, 0.0) / electrons)
    poisson *= rng.standard_normal(image.shape, dtype=np.float32)
    noise = rms * sky_noise(rng, instrument, image.shape)
    background = conditions.background.astype(np.float32)[:, None, None]
    return np.asarray(image + noise + poisson + background, dtype=np.float32)


def saturate(
    image: Float32[np.ndarray, "band y x"], saturation_flux: float
) -> Float32[np.ndarray, "band y x"]:
    """Full pixels spill along their column, half of the excess up and half down, until it is gone.

    Pixels end at `saturation_flux` at most; a column that is full spills over the edge.
    """
    result = image.copy()
    for band, column in zip(*np.nonzero((image > saturation_flux).any(axis=1)), strict=True):
        result[band, :, column] = _spill(image[band, :, column], saturation_flux)
    return result


def _spill(column: Float32[np.ndarray, " y"], saturation_flux: float) -> Float32[np.ndarray, " y"]:
    excess = np.maximum(column - saturation_flux, 0.0) / 2
    filled = np.minimum(column, saturation_flux)
    for order in (range(len(column)), range(len(column) - 1, -1, -1)):
        carried = 0.0
        for row in order:
            carried += float(excess[row])
            taken = min(carried, saturation_flux - float(filled[row]))
            filled[row] += taken
            carried -= taken
    return np.asarray(filled, dtype=np.float32)


def signal_to_noise(
    signal: Float32[np.ndarray, "band y x"],
    total: Float32[np.ndarray, "band y x"],
    conditions: Conditions,
) -> Float64[np.ndarray, " band"]:
    """S/N per band of a noiseless signal inside a noiseless image that contains it.

    sqrt(sum signal^2 / variance) over the pixels where the signal exceeds half of the sky's rms and
    a quarter of the other light, with variance = sky_rms^2 + total / electrons: the matched-filter
    S/N of what stands out of noise and host, as if the noise were uncorrelated (the stack's
    correlation lowers the true one by up to a third).
    """
    rms = conditions.sky_rms[:, None, None]
    variance = rms**2 + np.maximum(total, 0.0) / conditions.electrons[:, None, None]
    faintest = np.maximum(0.5 * rms, 0.25 * (total - signal))
    terms = np.where(signal > faintest, signal.astype(np.float64) ** 2 / variance, 0.0)
    return np.asarray(np.sqrt(terms.sum(axis=(1, 2))))
