"""An instrument: PSF, sampling, zero point and noise; turns noiseless light into an image."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import yaml
from pydantic import BaseModel, ConfigDict, Field, PositiveFloat, ValidationError, model_validator
from scipy.fft import fft2, irfft2, next_fast_len, rfft2

from lenspipe.errors import InputError
from lenspipe.problems import first_problem
from training.simulate.passband import Passband

if TYPE_CHECKING:
    from jaxtyping import Float32, Float64

_INSTRUMENTS = Path(__file__).parent / "instruments"


class _Block(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Psf(_Block):
    """Moffat profile of one band: mean and scatter of its FWHM, and how elliptical it may be."""

    fwhm_arcsec: PositiveFloat
    scatter_arcsec: float = Field(ge=0.0)
    moffat_beta: float = Field(gt=1.0)
    max_ellipticity: float = Field(default=0.0, ge=0.0, lt=1.0)


class Noise(_Block):
    """Noise of one band in flux units per pixel.

    sky_rms: standard deviation of the sky, its median over images; scatter_dex: spread of log10
    of it; background_rms: spread of what sky subtraction leaves; exposure_s and gain: electrons of
    one flux unit are exposure_s x gain, for the sources' own Poisson noise.
    """

    sky_rms: PositiveFloat
    scatter_dex: float = Field(ge=0.0)
    background_rms: float = Field(default=0.0, ge=0.0)
    exposure_s: PositiveFloat
    gain: PositiveFloat

    @property
    def electrons(self) -> float:
        """Electrons per flux unit."""
        return self.exposure_s * self.gain


class Instrument(_Block):
    """A survey as its images are: one YAML file in `instruments/`.

    filters: pass band of each band, from which colours follow.
    noise_correlation: autocorrelation of the sky noise at (row, column) offsets 0, 1, 2 ...;
    common_scatter_dex: spread of log10 sky_rms that the bands of one image share.
    saturation_flux: flux per pixel at which the detector is full.
    """

    name: str
    bands: tuple[str, ...]
    pixel_scale_arcsec: PositiveFloat
    zero_point_mag: float
    psf: dict[str, Psf]
    noise: dict[str, Noise]
    filters: dict[str, Passband]
    common_scatter_dex: float = Field(default=0.0, ge=0.0)
    noise_correlation: tuple[tuple[float, ...], ...] = ((1.0,),)
    saturation_flux: PositiveFloat = float("inf")

    @model_validator(mode="after")
    def _complete(self) -> Instrument:
        for name in ("psf", "noise", "filters"):
            found = tuple(getattr(self, name))
            if set(found) != set(self.bands):
                raise ValueError(f"expected {name} of bands {self.bands}, found {found}")
        if len({len(row) for row in self.noise_correlation}) != 1:
            raise ValueError("expected noise_correlation with rows of one length")
        if self.noise_correlation[0][0] != 1.0:
            raise ValueError("expected noise_correlation to be 1 at no offset")
        return self


@lru_cache(maxsize=8)
def load_instrument(name: str) -> Instrument:
    """An instrument by the name of its YAML file. InputError names what is wrong."""
    path = _INSTRUMENTS / f"{name}.yaml"
    if not path.is_file():
        known = ", ".join(sorted(file.stem for file in _INSTRUMENTS.glob("*.yaml")))
        raise InputError("instrument", f"one of {known}", repr(name))
    return parse_instrument(yaml.safe_load(path.read_text(encoding="utf-8")), str(path.name))


def parse_instrument(content: dict[str, Any], source: str) -> Instrument:
    """An instrument from a mapping; see `load_instrument`."""
    try:
        return Instrument.model_validate(content)
    except ValidationError as error:
        raise first_problem(error, source) from error


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
    size_pixels: int = 33,
) -> Float32[np.ndarray, "y x"]:
    """A Moffat PSF that sums to 1 on an odd grid, integrated over each pixel."""
    samples = 2
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
    step = instrument.pixel_scale_arcsec
    images = [
        psf_image(width, p.moffat_beta, step, e1=e1, e2=e2)
        for p, width, (e1, e2) in zip(psfs, fwhm, shape, strict=True)
    ]
    common = instrument.common_scatter_dex
    own = np.sqrt(np.maximum(np.array([q.scatter_dex for q in noises]) ** 2 - common**2, 0.0))
    dex = common * rng.normal() + own * rng.normal(size=n)
    return Conditions(
        np.stack(images),
        fwhm,
        shape,
        np.array([q.sky_rms for q in noises]) * 10.0**dex,
        rng.normal(size=n) * [q.background_rms for q in noises],
        np.array([q.electrons for q in noises]),
    )


def wide_psf(
    instrument: Instrument, conditions: Conditions, size_pixels: int
) -> Float32[np.ndarray, "band y x"]:
    """The PSF of the same image on a larger grid, for bright stars; size odd."""
    return np.stack(
        [
            psf_image(
                fwhm,
                instrument.psf[band].moffat_beta,
                instrument.pixel_scale_arcsec,
                e1=e1,
                e2=e2,
                size_pixels=size_pixels,
            )
            for band, fwhm, (e1, e2) in zip(
                instrument.bands, conditions.fwhm_arcsec, conditions.ellipticity, strict=True
            )
        ]
    )


@lru_cache(maxsize=4)
def typical_conditions(instrument_name: str) -> Conditions:
    """Median seeing and sky of a shipped instrument, no ellipticity, no background."""
    instrument = load_instrument(instrument_name)
    bands = instrument.bands
    fwhm = np.array([instrument.psf[band].fwhm_arcsec for band in bands])
    psf = [
        psf_image(w, instrument.psf[band].moffat_beta, instrument.pixel_scale_arcsec)
        for w, band in zip(fwhm, bands, strict=True)
    ]
    return Conditions(
        np.stack(psf),
        fwhm,
        np.zeros((len(bands), 2)),
        np.array([instrument.noise[band].sky_rms for band in bands]),
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
    shape = (next_fast_len(height + half_y, real=True), next_fast_len(width + half_x, real=True))
    kernel = np.zeros((len(psf), *shape), dtype=np.float32)
    kernel[:, : psf.shape[1], : psf.shape[2]] = psf
    kernel = np.roll(kernel, (-half_y, -half_x), axis=(1, 2))
    blurred = irfft2(rfft2(image, shape) * rfft2(kernel, shape), shape)
    return np.asarray(blurred[:, :height, :width], dtype=np.float32)


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
