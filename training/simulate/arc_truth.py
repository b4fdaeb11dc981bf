"""What is known of simulated arcs: numbers that a network's completeness is plotted against."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from jaxtyping import Bool, Float32, Float64

# The lens's peak is looked for within this distance of its centre, so that no neighbour is it.
_LENS_ARCSEC = 1.0


def lens_peak(
    light: Float32[np.ndarray, "band y x"], centre: tuple[float, float], pixel_scale_arcsec: float
) -> Float64[np.ndarray, " band"]:
    """Brightest pixel of each band within an arcsec of the lens; centre (x, y) in pixels."""
    y, x = np.indices(light.shape[1:])
    near = np.hypot(x - centre[0], y - centre[1]) * pixel_scale_arcsec < _LENS_ARCSEC
    return np.asarray(light[:, near].max(axis=1), dtype=np.float64)


def contrast(
    arcs: Float32[np.ndarray, "band y x"],
    light: Float32[np.ndarray, "band y x"],
    centre: tuple[float, float],
    pixel_scale_arcsec: float,
) -> Float64[np.ndarray, " band"]:
    """Peak of the arcs over peak of the lens, per band, both after the PSF: the alpha of van
    Lohuizen 2021, equation 4.2. NaN where the lens has no light."""
    lens = lens_peak(light, centre, pixel_scale_arcsec)
    peaks = arcs.max(axis=(1, 2)).astype(np.float64)
    return np.asarray(np.divide(peaks, lens, out=np.full(len(lens), np.nan), where=lens > 0))


def above_noise(
    arcs: Float32[np.ndarray, "y x"], sky_rms: float, times: float = 2.0
) -> Bool[np.ndarray, "y x"]:
    """Pixels of noiseless arcs above `times` the rms of the sky."""
    return np.asarray(arcs > times * sky_rms)


def area(
    arcs: Float32[np.ndarray, "y x"], sky_rms: float, pixel_scale_arcsec: float
) -> dict[str, float]:
    """Area of the arcs above twice the noise, in arcsec^2 and as a part of the whole image (van
    Lohuizen 2021, section 5.3, "information content")."""
    bright = above_noise(arcs, sky_rms)
    return {
        "arc_area_arcsec2": float(bright.sum()) * pixel_scale_arcsec**2,
        "arc_area_2sigma_fraction": float(bright.mean()),
    }
