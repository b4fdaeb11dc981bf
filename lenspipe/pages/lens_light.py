"""A galaxy's smooth light taken off its stamp, so that what lies on it shows."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float32, Float64

_ANNULUS_PIXELS = 1.0
_CORE_SIGMA_PIXELS = 4.0  # of the weight of the moments: the deflector, not its neighbours
_ROUNDS = 4
_FLATTEST = 0.3


def subtract_lens_light(pixels: Float32[np.ndarray, "band y x"]) -> Float32[np.ndarray, "band y x"]:
    """Stamps of the bands less, in each, the median of every elliptical annulus around the object
    in the middle.

    Centre, axis ratio (at least 0.3) and angle are those of the reddest band, from moments weighted
    by a Gaussian. An arc that covers less than half of its annuli stays; a full ring does not, nor
    does what is no ellipse (spiral arms, a second nucleus) go. NaN stays NaN; a stamp without a
    known pixel comes back as it is.
    """
    red = pixels[-1].astype(np.float64)
    if not np.isfinite(red).any():
        return pixels
    radius = _elliptical_radius(red - np.nanmedian(red))
    annulus = (radius / _ANNULUS_PIXELS).astype(np.int64)
    return np.stack([_less_profile(band, radius, annulus) for band in pixels]).astype(np.float32)


def _elliptical_radius(image: Float64[np.ndarray, "y x"]) -> Float64[np.ndarray, "y x"]:
    """Distance of each pixel from the centre, along the ellipse's axes, of equal area with a circle
    of that radius."""
    ny, nx = image.shape
    y, x = np.mgrid[:ny, :nx].astype(np.float64)
    flux = np.clip(np.nan_to_num(image), 0.0, None)
    centre = np.array([(nx - 1) / 2, (ny - 1) / 2])
    shape = np.eye(2)
    for _ in range(_ROUNDS):
        dx, dy = x - centre[0], y - centre[1]
        weight = flux * np.exp(-0.5 * _squared(dx, dy, shape) / _CORE_SIGMA_PIXELS**2)
        total = weight.sum()
        if total <= 0:
            break
        centre = np.array([(weight * x).sum(), (weight * y).sum()]) / total
        dx, dy = x - centre[0], y - centre[1]
        xx, yy, xy = ((weight * a).sum() / total for a in (dx * dx, dy * dy, dx * dy))
        shape = _of_unit_area(np.array([[xx, xy], [xy, yy]]))
    return np.asarray(np.sqrt(_squared(x - centre[0], y - centre[1], shape)))


def _of_unit_area(moments: Float64[np.ndarray, "2 2"]) -> Float64[np.ndarray, "2 2"]:
    """The ellipse of second moments with the area of a circle of radius 1."""
    values, axes = np.linalg.eigh(moments)
    ratio = np.sqrt(max(values[0], 0.0) / values[1]) if values[1] > 0 else 1.0
    ratio = max(float(ratio), _FLATTEST)
    return np.asarray(axes @ np.diag([ratio, 1.0 / ratio]) @ axes.T)


def _squared(
    dx: Float64[np.ndarray, "y x"],
    dy: Float64[np.ndarray, "y x"],
    shape: Float64[np.ndarray, "2 2"],
) -> Float64[np.ndarray, "y x"]:
    inverse = np.linalg.inv(shape)
    return np.asarray(
        inverse[0, 0] * dx * dx + 2 * inverse[0, 1] * dx * dy + inverse[1, 1] * dy * dy
    )


def _less_profile(
    band: Float32[np.ndarray, "y x"],
    radius: Float64[np.ndarray, "y x"],
    annulus: np.ndarray,
) -> Float64[np.ndarray, "y x"]:
    values = band.astype(np.float64)
    count = int(annulus.max()) + 1
    radii, medians = [], []
    for k in range(count):
        inside = (annulus == k) & np.isfinite(values)
        if inside.any():
            radii.append(np.mean(radius[inside]))
            medians.append(np.median(values[inside]))
    return np.asarray(values - np.interp(radius, radii, medians)) if radii else values
