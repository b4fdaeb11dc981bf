"""What a survey's catalogue says of a source: Kron-like and PSF magnitudes with their errors.

A model of the measurement instead of a measurement, so that rows without pixels, the training set
of the photometry network and the demo's catalogue have one and the same noise.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64, Int64

from training.simulate.instrument import Instrument
from training.simulate.observe import Conditions

# A Kron aperture gathers about twice the background variance of a matched filter.
KRON_AREA = 2.0
CALIBRATION_MAG = 0.01
PSF_MODEL_MAG = 0.015
MIN_SIGNAL_TO_NOISE = 3.0
FWHM_PER_SIGMA = 2.3548
# Half-light radius of a circular Gaussian in units of its sigma.
HALF_LIGHT_PER_SIGMA = 1.1774


@dataclass(frozen=True)
class Depth:
    """Noise and seeing that a source was measured with; each a number or one per source.

    rms_mag: AB magnitude of the background rms of one pixel. psf_fwhm_arcsec.
    gain_mag: AB magnitude of one photo-electron in the whole exposure.
    """

    rms_mag: Float64[np.ndarray, "*n"]
    psf_fwhm_arcsec: Float64[np.ndarray, "*n"]
    gain_mag: Float64[np.ndarray, "*n"]
    pixel_scale_arcsec: float


def depth(
    instrument: Instrument,
    conditions: Sequence[Conditions],
    band: int,
    image: Int64[np.ndarray, " n"],
) -> Depth:
    """Depth of one band at each source. image: number of the source's image in `conditions`."""
    zero_point = instrument.zero_point_mag
    rms = np.array([c.sky_rms[band] for c in conditions]) * instrument.correlation_factor
    electrons = np.array([c.electrons[band] for c in conditions])
    fwhm = np.array([c.fwhm_arcsec[band] for c in conditions])
    return Depth(
        (zero_point - 2.5 * np.log10(rms))[image],
        fwhm[image],
        (zero_point + 2.5 * np.log10(electrons))[image],
        instrument.pixel_scale_arcsec,
    )


def flux(magnitude: Float64[np.ndarray, " n"]) -> Float64[np.ndarray, " n"]:
    """AB magnitude to flux in units of magnitude 0."""
    return np.asarray(10.0 ** (-0.4 * np.asarray(magnitude, dtype=np.float64)))


def flux_error(
    true_flux: Float64[np.ndarray, " n"],
    half_light_radius_arcsec: Float64[np.ndarray, " n"],
    depth: Depth,
) -> Float64[np.ndarray, " n"]:
    """Noise of a Kron flux: background over the source's effective area, and photon noise.

    Effective area of a Gaussian source seen through a Gaussian PSF: 4 pi (s_psf^2 + s_source^2).
    """
    sigma2 = (depth.psf_fwhm_arcsec / FWHM_PER_SIGMA) ** 2
    sigma2 = sigma2 + (half_light_radius_arcsec / HALF_LIGHT_PER_SIGMA) ** 2
    pixels = KRON_AREA * 4 * np.pi * sigma2 / depth.pixel_scale_arcsec**2
    background = flux(depth.rms_mag) ** 2 * pixels
    return np.asarray(np.sqrt(background + true_flux * flux(depth.gain_mag)))


def magnitude_error(
    signal: Float64[np.ndarray, " n"], sigma: Float64[np.ndarray, " n"]
) -> Float64[np.ndarray, " n"]:
    """Error in magnitudes of a flux, the calibration's own included."""
    return np.asarray(np.hypot(2.5 / np.log(10) * sigma / signal, CALIBRATION_MAG))


def kron(
    rng: np.random.Generator,
    magnitude: Float64[np.ndarray, " n"],
    half_light_radius_arcsec: Float64[np.ndarray, " n"],
    depth: Depth,
) -> tuple[Float64[np.ndarray, " n"], Float64[np.ndarray, " n"]]:
    """Measured magnitude and its error; NaN in both where the signal is below 3 sigma."""
    true_flux = flux(magnitude)
    sigma = flux_error(true_flux, half_light_radius_arcsec, depth)
    n = len(true_flux)
    measured = true_flux + sigma * rng.standard_normal(n)
    calibration = CALIBRATION_MAG * rng.standard_normal(n)
    seen = measured > MIN_SIGNAL_TO_NOISE * sigma
    signal = np.where(seen, measured, np.nan)
    return -2.5 * np.log10(signal) + calibration, magnitude_error(signal, sigma)


def psf_minus_kron(
    rng: np.random.Generator,
    half_light_radius_arcsec: Float64[np.ndarray, " n"],
    error_mag: Float64[np.ndarray, " n"],
    depth: Depth,
) -> Float64[np.ndarray, " n"]:
    """PSF magnitude less Kron magnitude: 0 for a star, positive for what is resolved.

    A PSF fitted to a Gaussian source takes 2 s_psf^2 / (2 s_psf^2 + s_source^2) of its flux. The
    two measurements share pixels, so half of the variance of the Kron magnitude is common.
    """
    psf2 = (depth.psf_fwhm_arcsec / FWHM_PER_SIGMA) ** 2
    source2 = (half_light_radius_arcsec / HALF_LIGHT_PER_SIGMA) ** 2
    scatter = np.hypot(np.nan_to_num(error_mag) / np.sqrt(2), PSF_MODEL_MAG)
    difference = 2.5 * np.log10(1 + source2 / (2 * psf2))
    return np.asarray(difference + scatter * rng.standard_normal(len(difference)))
