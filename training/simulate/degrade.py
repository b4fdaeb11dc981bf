"""A deeper, sharper survey's image as another instrument would have taken it: real galaxies of one
survey become examples for another."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy.ndimage import affine_transform, gaussian_filter

from lenspipe.errors import InputError
from training.simulate.instrument import Instrument
from training.simulate.observe import Conditions, sky_noise

if TYPE_CHECKING:
    from jaxtyping import Float32

FWHM_PER_SIGMA = 2.0 * np.sqrt(2.0 * np.log(2.0))


@dataclass(frozen=True)
class Taken:
    """How an image was taken: bands in order, arcsec per pixel, zero point, and per band the FWHM
    of its PSF (arcsec) and the standard deviation of its sky (flux per pixel)."""

    bands: tuple[str, ...]
    pixel_scale_arcsec: float
    zero_point_mag: float
    fwhm_arcsec: Sequence[float]
    sky_rms: Sequence[float]


def degrade(
    rng: np.random.Generator,
    image: Float32[np.ndarray, "band y x"],
    taken: Taken,
    instrument: Instrument,
    seen: Conditions,
) -> Float32[np.ndarray, "band y1 x1"]:
    """`image` in the bands, pixels, seeing and noise of `instrument` under conditions `seen`.

    Each band is blurred by the Gaussian that makes up the difference of the two FWHM (not at all
    where the image is the less sharp one), resampled about its centre by cubic splines with
    surface brightness kept, put on the instrument's zero point, and given the noise that is
    missing: the sky's, correlated as the stack's is, and the sources' own.
    InputError: a band that the image has not.
    """
    planes = [_plane(image, taken, instrument, seen, k) for k in range(len(instrument.bands))]
    light = np.stack([plane for plane, _ in planes])
    left = np.array([rms for _, rms in planes])
    missing = np.sqrt(np.maximum(seen.sky_rms**2 - left**2, 0.0)).astype(np.float32)
    sky = missing[:, None, None] * sky_noise(rng, instrument, light.shape)
    electrons = seen.electrons.astype(np.float32)[:, None, None]
    own = np.sqrt(np.maximum(light, 0.0) / electrons)
    own *= rng.standard_normal(light.shape, dtype=np.float32)
    return np.asarray(light + sky + own, dtype=np.float32)


def size_after(pixels: int, taken: Taken, instrument: Instrument) -> int:
    """Side of the resampled image: whole pixels that lie inside the original, of its parity."""
    fits = int((pixels - 1) * taken.pixel_scale_arcsec / instrument.pixel_scale_arcsec) + 1
    return fits - (fits - pixels) % 2


def _plane(
    image: Float32[np.ndarray, "band y x"],
    taken: Taken,
    instrument: Instrument,
    seen: Conditions,
    k: int,
) -> tuple[Float32[np.ndarray, "y1 x1"], float]:
    """One band of the instrument without new noise, and what sky noise is left in it."""
    band = instrument.bands[k]
    if band not in taken.bands:
        raise InputError("bands", f"{band} among the image's", ", ".join(taken.bands))
    own = taken.bands.index(band)
    wider = max(seen.fwhm_arcsec[k] ** 2 - taken.fwhm_arcsec[own] ** 2, 0.0) ** 0.5
    sigma = float(wider / FWHM_PER_SIGMA / taken.pixel_scale_arcsec)
    ratio = instrument.pixel_scale_arcsec / taken.pixel_scale_arcsec
    scale = 10.0 ** (0.4 * (instrument.zero_point_mag - taken.zero_point_mag)) * ratio**2
    light = _resampled(gaussian_filter(image[own], sigma, mode="nearest"), ratio, taken, instrument)
    return light * np.float32(scale), taken.sky_rms[own] * scale * _kept_noise(sigma)


def _resampled(
    image: Float32[np.ndarray, "y x"], ratio: float, taken: Taken, instrument: Instrument
) -> Float32[np.ndarray, "y1 x1"]:
    shape = tuple(size_after(side, taken, instrument) for side in image.shape)
    offset = [
        (side - 1 - (new - 1) * ratio) / 2 for side, new in zip(image.shape, shape, strict=True)
    ]
    found = affine_transform(
        image, np.array([ratio, ratio]), offset, shape, order=3, mode="nearest"
    )
    return np.asarray(found, dtype=np.float32)


def _kept_noise(sigma_pixels: float) -> float:
    """Part of white noise's standard deviation that a Gaussian blur leaves."""
    half = int(4.0 * sigma_pixels + 0.5)
    if not half:
        return 1.0
    line = np.exp(-0.5 * (np.arange(-half, half + 1) / sigma_pixels) ** 2)
    return float(np.sum((line / line.sum()) ** 2))
