"""Colour pictures of stamps, with faint arcs and bright cores visible at once."""

from __future__ import annotations

import warnings

import numpy as np
from jaxtyping import Float32, Float64, UInt8

_FAINT_SIGMA = 3.0  # flux at which the scale turns from linear to logarithmic
_WHITE_PERCENTILE = 99.5


def band_weights(images: Float32[np.ndarray, "n band y x"]) -> Float64[np.ndarray, " band"]:
    """Factors that bring the typical stamp of the set half way to white.

    Red hosts stay warm and blue arcs stand out, whatever the survey's bands and zero points are;
    all the way to white, the noise of the faintest band would be all that is seen.
    """
    if not images.size:
        return np.ones(images.shape[1])
    with warnings.catch_warnings():
        # A stamp that could not be read is NaN throughout and says nothing.
        warnings.filterwarnings("ignore", "All-NaN slice", RuntimeWarning)
        bright = np.nanpercentile(images.astype(np.float64), 99, axis=(2, 3))
        typical = np.nanmedian(bright, axis=0)
    usable = np.isfinite(typical) & (typical > 0)
    weights = np.ones(images.shape[1])
    if usable.any():
        weights[usable] = np.sqrt(typical[usable].mean() / typical[usable])
    return weights


def asinh_rgb(
    pixels: Float32[np.ndarray, "band y x"], weights: Float64[np.ndarray, " band"]
) -> UInt8[np.ndarray, "y x 3"]:
    """One stamp as 8-bit red, green, blue, north and east as in the stamp, row 0 at the bottom.

    Bands run from blue to red, as model cards list them: the last is red, the first blue, the
    middle ones green; a single band is grey. All channels share one asinh scale of their mean
    intensity, so that a colour is the same in core and wing: Lupton et al. 2004 (PASP 116, 133),
    eqs. 2 and 3, with the scale set by the stamp's own noise.
    """
    flux = np.nan_to_num(pixels.astype(np.float64) * weights[:, None, None])
    flux -= np.median(flux, axis=(1, 2), keepdims=True)
    channels = np.stack([flux[-1], _green(flux), flux[0]], axis=-1)
    intensity = channels.mean(axis=-1)
    sigma = 1.4826 * np.median(np.abs(intensity - np.median(intensity)))
    soft = _FAINT_SIGMA * sigma or 1.0
    white = np.arcsinh(max(np.percentile(intensity, _WHITE_PERCENTILE), 5 * soft) / soft)
    safe = np.where(intensity > 0, intensity, 1.0)
    gain = np.where(intensity > 0, np.arcsinh(safe / soft) / (white * safe), 0.0)
    scaled = np.clip(channels * gain[..., None], 0.0, None)
    scaled /= np.maximum(scaled.max(axis=-1, keepdims=True), 1.0)
    return np.flipud((255 * scaled + 0.5).astype(np.uint8))


def _green(flux: Float64[np.ndarray, "band y x"]) -> Float64[np.ndarray, "y x"]:
    inner = flux[1:-1] if len(flux) > 2 else flux
    return np.asarray(inner.mean(axis=0))
