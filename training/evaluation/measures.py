"""Plain measurements of a stamp, by which to say why it scored as it did, or how it was made."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
from jaxtyping import Bool, Float, Float32, Float64

from training.simulate.real import find_peaks, sky_rms

_APERTURE_ARCSEC = 1.5
_TOTAL_ARCSEC = 4.0
# Where arcs of galaxy-scale lenses lie.
_RING_ARCSEC = (1.0, 3.5)
_NEAREST_NEIGHBOUR_ARCSEC = 1.5
# Smoothed light of this many times the noise is part of the object.
_SEEN_SIGMA = 3.0
# Part of a band's pixels above which one value is what gaps were filled with, and part that must be
# left for the sky's noise to be measured.
_FILLED, _FEWEST_SKY = 0.02, 0.1


def measure(
    stamp: Float[np.ndarray, "band y x"],
    bands: Sequence[str],
    pixel_scale_arcsec: float,
    zero_point_mag: float,
) -> dict[str, float]:
    """Statistics by name; bands from blue to red. NaN where a flux is negative, or no sky is left
    to measure.

    `mag_B`, colours `A-B` of neighbouring bands within 1.5 arcsec, `r50_arcsec` and
    `concentration` 5 log10(r80/r20) of the reddest band within 4 arcsec, `ellipticity`,
    `asymmetry` (against itself turned by 180 degrees), `ring_blue`: how much bluer (mag) the
    light between 1 and 3.5 arcsec is than that within 1 arcsec, first band against last,
    `bluest_spot_snr`: the highest S/N in that ring of the first band's light that the last band's
    does not explain, `neighbours` and `nearest_neighbour_arcsec`, `sky_rms_B`, `background_B` (in
    sky_rms), and the noise's autocorrelation `noise_lag_1`, `noise_lag_2` (mean over bands and
    both axes).
    """
    image = np.asarray(stamp, np.float64)
    rms = _measured_rms(np.asarray(stamp, np.float32))
    radius = _radius(image.shape[-1]) * pixel_scale_arcsec
    magnitudes = {
        band: _magnitude(image[k][radius < _APERTURE_ARCSEC].sum(), zero_point_mag)
        for k, band in enumerate(bands)
    }
    found = {f"mag_{band}": value for band, value in magnitudes.items()}
    for a, b in pairwise(bands):
        found[f"{a}-{b}"] = magnitudes[a] - magnitudes[b]
    sky = sky_mask(image, rms)
    found |= _shape(image[-1], pixel_scale_arcsec)
    found |= _ring(image, rms, radius)
    found |= _neighbours(stamp[-1], pixel_scale_arcsec)
    found |= {f"sky_rms_{band}": float(rms[k]) for k, band in enumerate(bands)}
    found |= {
        f"background_{band}": float(np.median(image[k][sky]) / rms[k]) if sky.any() else np.nan
        for k, band in enumerate(bands)
    }
    return found | _noise(image, sky)


def _measured_rms(stamp: Float32[np.ndarray, "band y x"]) -> Float64[np.ndarray, " band"]:
    """`sky_rms` of the pixels that were not filled with one value; NaN where too few are left."""
    found = np.full(len(stamp), np.nan)
    for k, band in enumerate(stamp):
        values, counts = np.unique(band, return_counts=True)
        filled = band == values[counts.argmax()]
        own = band[~filled] if filled.mean() > _FILLED else band.ravel()
        if len(own) > _FEWEST_SKY * band.size:
            found[k] = sky_rms(own[None, None])[0]
    return found


def sky_mask(
    image: Float64[np.ndarray, "band y x"], rms: Float64[np.ndarray, " band"]
) -> Bool[np.ndarray, "y x"]:
    """Pixels that hold no object: no light in the sum of the bands, nor beside it."""
    from scipy.ndimage import binary_dilation, gaussian_filter

    total = (image / rms[:, None, None]).sum(axis=0) / np.sqrt(len(rms))
    smooth = gaussian_filter(total - np.median(total), 1.5)
    spread = 1.4826 * np.median(np.abs(smooth - np.median(smooth)))
    objects = binary_dilation(smooth > _SEEN_SIGMA * max(spread, 1e-12), iterations=2)
    return np.asarray(~objects, bool)


def _radius(size: int) -> Float64[np.ndarray, "y x"]:
    """Pixels from where readers put the source."""
    y, x = np.indices((size, size)) - size // 2
    return np.asarray(np.hypot(y, x), np.float64)


def _magnitude(flux: float, zero_point_mag: float) -> float:
    return float(zero_point_mag - 2.5 * np.log10(flux)) if flux > 0 else np.nan


def _shape(image: Float64[np.ndarray, "y x"], pixel_scale_arcsec: float) -> dict[str, float]:
    """About the object's own middle: where it lies in the stamp is no property of it."""
    centre = _centre(image, pixel_scale_arcsec)
    y, x = np.indices(image.shape)
    radius = np.hypot(y - centre[0], x - centre[1]) * pixel_scale_arcsec
    inside = radius < _TOTAL_ARCSEC
    order = np.argsort(radius[inside], kind="stable")
    growth, out = np.cumsum(image[inside][order]), radius[inside][order]
    r20, r50, r80 = (float(out[np.argmax(growth > p * growth[-1])]) for p in (0.2, 0.5, 0.8))
    light = np.where(inside, np.maximum(image, 0.0), 0.0)
    return {
        "r50_arcsec": r50,
        "concentration": 5.0 * float(np.log10(max(r80, 0.1) / max(r20, 0.1))),
        "ellipticity": _ellipticity(light),
        "asymmetry": _asymmetry(light, centre),
    }


def _centre(image: Float64[np.ndarray, "y x"], pixel_scale_arcsec: float) -> tuple[float, float]:
    """(y, x) of the centroid under a Gaussian weight that follows it, from the stamp's middle."""
    y, x = np.indices(image.shape, dtype=np.float64)
    cy = cx = float(image.shape[-1] // 2)
    width = _APERTURE_ARCSEC / 2.0 / pixel_scale_arcsec
    for _ in range(8):
        weight = np.exp(-0.5 * ((y - cy) ** 2 + (x - cx) ** 2) / width**2) * np.maximum(image, 0.0)
        total = max(float(weight.sum()), 1e-30)
        cy, cx = float((weight * y).sum() / total), float((weight * x).sum() / total)
    return cy, cx


def _asymmetry(light: Float64[np.ndarray, "y x"], centre: tuple[float, float]) -> float:
    """|light - light turned by 180 degrees| / 2 light, turned about the nearest half pixel."""
    moves = [round(2 * c) - n + 1 for c, n in zip(centre, light.shape, strict=True)]
    turned = np.roll(light[::-1, ::-1], moves, (0, 1))
    return float(np.abs(light - turned).sum() / max(2.0 * float(light.sum()), 1e-12))


def _ellipticity(light: Float64[np.ndarray, "y x"]) -> float:
    """(1 - q) / (1 + q) from second moments."""
    total = max(float(light.sum()), 1e-12)
    y, x = np.indices(light.shape, dtype=np.float64)
    y, x = y - (light * y).sum() / total, x - (light * x).sum() / total
    xx, yy, xy = ((light * p).sum() / total for p in (x * x, y * y, x * y))
    size = float(xx + yy)
    return float(np.hypot(xx - yy, 2 * xy) / size / 2) if size > 0 else np.nan


def _ring(
    image: Float64[np.ndarray, "band y x"],
    rms: Float64[np.ndarray, " band"],
    radius: Float64[np.ndarray, "y x"],
) -> dict[str, float]:
    from scipy.ndimage import gaussian_filter

    core, ring = radius < _RING_ARCSEC[0], (radius >= _RING_ARCSEC[0]) & (radius < _RING_ARCSEC[1])
    (blue_in, red_in), (blue_out, red_out) = (
        (image[0][part].sum(), image[-1][part].sum()) for part in (core, ring)
    )
    fluxes = np.array([blue_in, red_in, blue_out, red_out])
    known = (fluxes > 0).all()
    bluer = -2.5 * np.log10(blue_out * red_in / (red_out * blue_in)) if known else np.nan
    scale = blue_in / red_in if red_in > 0 else 0.0
    left = gaussian_filter(image[0] - scale * image[-1], 1.5)
    noise = 1.4826 * np.median(np.abs(left - np.median(left)))
    floor, height = 1e-3 * float(rms[0]), left[ring].max() - np.median(left)
    spot = height / max(noise, floor) if np.isfinite(floor) else np.nan
    return {"ring_blue": -float(bluer), "bluest_spot_snr": float(spot)}


def _neighbours(image: Float[np.ndarray, "y x"], pixel_scale_arcsec: float) -> dict[str, float]:
    peaks = find_peaks(np.asarray(image, np.float32))
    away = np.hypot(*(peaks - image.shape[-1] // 2).T) * pixel_scale_arcsec
    others = away[away > _NEAREST_NEIGHBOUR_ARCSEC]
    nearest = float(others.min()) if len(others) else np.nan
    return {"neighbours": float(len(others)), "nearest_neighbour_arcsec": nearest}


def _noise(
    image: Float64[np.ndarray, "band y x"], sky: Bool[np.ndarray, "y x"]
) -> dict[str, float]:
    return {f"noise_lag_{lag}": _autocorrelation(image, sky, lag) for lag in (1, 2)}


def _autocorrelation(
    image: Float64[np.ndarray, "band y x"], sky: Bool[np.ndarray, "y x"], lag: int
) -> float:
    """Mean over bands and both axes of the correlation of sky pixels `lag` apart."""
    found = []
    for plane, mask in ((image, sky), (image.swapaxes(1, 2), sky.T)):
        both = mask[:, lag:] & mask[:, :-lag]
        for band in plane:
            level = band - np.median(band[mask]) if mask.any() else band
            pairs = level[:, lag:][both] * level[:, :-lag][both]
            found.append(
                pairs.mean() / max(np.mean(level[mask] ** 2), 1e-30) if both.any() else np.nan
            )
    return float(np.mean(found))
