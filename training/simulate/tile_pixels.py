"""From noiseless flux to the pixels of a coadd tile: seeing, noise, full wells, dead columns."""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Float32, Float64, UInt8
from scipy import ndimage
from scipy.signal import oaconvolve

from training.simulate.tiles import BAD_COLUMN, BRIGHT_STAR, SATURATED, Exposure

HALO_PIXELS = 24
LANCZOS = 4


def convolve(
    flux: Float32[np.ndarray, "y x"], psf: Float64[np.ndarray, "k k"], margin: int
) -> Float64[np.ndarray, "y x"]:
    """Seeing over a whole tile at once; `margin` pixels on every side are used and cut off."""
    blurred = oaconvolve(flux.astype(np.float64), psf, mode="same")
    return np.asarray(blurred[margin:-margin, margin:-margin])


def add_noise(
    rng: np.random.Generator, counts: Float64[np.ndarray, "y x"], exposure: Exposure
) -> Float32[np.ndarray, "y x"]:
    """Background and photon noise, both Gaussian: a coadd has many electrons in every pixel."""
    variance = exposure.background_rms**2 + np.maximum(counts, 0.0) / exposure.gain
    noise = rng.standard_normal(counts.shape, dtype=np.float32) * np.sqrt(variance)
    return np.asarray(counts + noise, dtype=np.float32)


def full_wells(counts: Float32[np.ndarray, "y x"], saturation: float) -> Bool[np.ndarray, "y x"]:
    """Pixels past full well and the charge that ran over from them, up and down the column.

    The trail holds the charge above full well, each of its pixels one full well.
    """
    full = counts > saturation
    lost = full.copy()
    labels, _ = ndimage.label(full)
    for number, box in enumerate(ndimage.find_objects(labels), start=1):
        inside = labels[box] == number
        excess = np.where(inside, counts[box], 0.0).sum(axis=0) / saturation
        _bleed(lost, box, inside, excess)
    return lost


def _bleed(
    lost: Bool[np.ndarray, "y x"],
    box: tuple[slice, slice],
    inside: Bool[np.ndarray, "h w"],
    excess: Float64[np.ndarray, " w"],
) -> None:
    for offset in np.flatnonzero(inside.any(axis=0)):
        rows = np.flatnonzero(inside[:, offset]) + box[0].start
        half = int(excess[offset] / 2)
        column = box[1].start + offset
        lost[max(rows[0] - half, 0) : rows[-1] + half + 1, column] = True


def halo(saturated: Bool[np.ndarray, "y x"]) -> Bool[np.ndarray, "y x"]:
    """Pixels within `HALO_PIXELS` of a full well."""
    if not saturated.any():
        return saturated
    return np.asarray(ndimage.distance_transform_edt(~saturated) < HALO_PIXELS)


def draw_bad_columns(rng: np.random.Generator, side: int) -> list[tuple[int, slice]]:
    """Dead columns that dithering did not fill: (column, rows) of about one per 500 columns."""
    columns = []
    for _ in range(int(rng.poisson(side / 500)) + 1):
        start, stop = np.sort(rng.integers(0, side, size=2))
        columns.append((int(rng.integers(0, side)), slice(int(start), int(stop) + 1)))
    return columns


def spoil(
    counts: Float32[np.ndarray, "y x"],
    exposure: Exposure,
    bad_columns: list[tuple[int, slice]],
) -> tuple[Float32[np.ndarray, "y x"], UInt8[np.ndarray, "y x"]]:
    """Pixels and mask: full wells become NaN; dead columns stay wrong numbers under the mask."""
    saturated = full_wells(counts, exposure.saturation)
    mask = np.where(saturated, SATURATED, 0).astype(np.uint8)
    mask[halo(saturated)] |= BRIGHT_STAR
    spoiled = counts.copy()
    for column, rows in bad_columns:
        spoiled[rows, column] = -20 * exposure.background_rms
        mask[rows, column] |= BAD_COLUMN
    spoiled[saturated] = np.nan
    return spoiled, mask


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
    comes out of the convolution is the shifted PSF to better than 0.1%.
    """
    x0, y0 = (int(np.floor(p)) - LANCZOS + 1 for p in position)
    size = 2 * LANCZOS
    if x0 < 0 or y0 < 0 or x0 + size > canvas.shape[2] or y0 + size > canvas.shape[1]:
        return
    kernel = np.outer(lanczos_weights(position[1] - y0), lanczos_weights(position[0] - x0))
    canvas[:, y0 : y0 + size, x0 : x0 + size] += (fluxes[:, None, None] * kernel).astype(np.float32)
