"""Real galaxies for training: what is measured of hosts, and HST galaxies as source light.

Each galaxy belongs to training, thresholds or judging by the SHA-256 of its name, for good.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
from astropy.io import fits
from scipy.ndimage import gaussian_filter, label, maximum_filter

from lenspipe.errors import InputError
from training.simulate import priors
from training.simulate.instrument import Instrument
from training.simulate.priors import Host
from training.simulate.scene import magnitude
from training.simulate.source import SourceStamp

if TYPE_CHECKING:
    from jaxtyping import Float32, Float64, Int64

Split = Literal["training", "calibration", "held_out"]

# Images and catalogue of each folder.
_SOURCES = (
    (
        "hst_cosmos/paltas/real_galaxy_images_23.5_n1.fits",
        "hst_cosmos/paltas/real_galaxy_catalog_23.5.fits",
    ),
    (
        "hst_cosmos/btk/real_galaxy_images_extension.fits",
        "hst_cosmos/btk/real_galaxy_catalog_26_extension_example.fits",
    ),
)
SOURCE_FILES = tuple(path for pair in _SOURCES for path in pair)
_APERTURE_ARCSEC = 4.0
# A frame whose noise differs from the survey's median by more than this factor in any band is not
# on the zero point that its exposure time says, or holds a defect.
_NOISE_FACTOR = 1.7
FAINTEST_I_MAG = 20.8
# How far from its place a galaxy may be found, and from where on another one is its own source.
_NEAR_PIXELS, _APART_ARCSEC = 4.0, 4.0
# Velocity dispersion from luminosity scatters by this much (dex) about the inverse relation.
_SIGMA_SCATTER_DEX = 0.06


@dataclass(frozen=True)
class RealHost:
    """A real galaxy in its frame.

    frame: (band, y, x) flux at the instrument's zero point; centre (x, y) and neighbours (n, 2) of
    (x, y) in pixels; shape (e1, e2); electrons per flux unit, sky_rms per band; redshift and
    velocity dispersion (km/s) may be nan; psf: images that sum to 1 where the survey gives them.
    """

    name: str
    frame: Float32[np.ndarray, "band y x"]
    centre: tuple[float, float]
    neighbours: Int64[np.ndarray, "n 2"]
    magnitudes: dict[str, float]
    radius_arcsec: float
    shape: tuple[float, float]
    redshift: float
    sky_rms: Float64[np.ndarray, " band"]
    electrons: Float64[np.ndarray, " band"]
    sigma_km_s: float = float("nan")
    psf: Float32[np.ndarray, "band py px"] | None = None


def split_of(name: str) -> Split:
    """Which side an object is on, by its name alone: half train, a quarter each is kept for
    thresholds and calibration, and for judging."""
    digest = hashlib.sha256(name.encode()).digest()
    sides: tuple[Split, ...] = ("training", "calibration", "training", "held_out")
    return sides[digest[-1] % 4]


def data_folder(data: str | None) -> Path | None:
    """The folder of real data, None where none is named; InputError: it is not there."""
    if not data:
        return None
    if not Path(data).is_dir():
        raise InputError("simulate.data", "a folder of real data", f"none at {data}")
    return Path(data)


def measured_host(
    name: str,
    frame: Float32[np.ndarray, "band y x"],
    instrument: Instrument,
    *,
    electrons: Float64[np.ndarray, " band"],
    rms: Float64[np.ndarray, " band"] | None = None,
    at: tuple[float, float] | None = None,
    faintest_i_mag: float = FAINTEST_I_MAG,
    redshift: float = float("nan"),
    sigma_km_s: float = float("nan"),
    psf: Float32[np.ndarray, "band py px"] | None = None,
) -> RealHost | None:
    """The galaxy of a frame that stands within four pixels of `at` (x, y), default its middle.

    None where there is none or it is fainter than faintest_i_mag. frame: flux at the instrument's
    zero point; rms: of the sky; None: measured between the frame's sources, and None is returned
    where that is not the survey's; the rest as in `RealHost`.
    """
    red = frame[instrument.bands.index("i")]
    peaks = find_peaks(red)
    middle = np.array(at) if at else (np.array(frame.shape[2:0:-1]) - 1) / 2
    distance = np.hypot(*(peaks - middle).T) if len(peaks) else np.array([np.inf])
    if not np.isfinite(frame).all() or distance.min() > _NEAR_PIXELS:
        return None
    centre, shape, radius = _moments(red, peaks[np.argmin(distance)], instrument)
    total = _aperture(frame, centre, instrument)
    if rms is None:
        rms = sky_rms(frame)
        if not _is_the_surveys(rms, instrument):
            return None
    if not np.isfinite(list(total.values())).all() or total["i"] > faintest_i_mag:
        return None
    others = peaks[distance > _APART_ARCSEC / instrument.pixel_scale_arcsec]
    return RealHost(
        name, frame, centre, others, total, radius, shape, redshift, rms, electrons, sigma_km_s, psf
    )


def _is_the_surveys(rms: Float64[np.ndarray, " band"], instrument: Instrument) -> bool:
    expected = np.array([instrument.sky_rms(band) for band in instrument.bands])
    return bool(np.abs(np.log(rms / expected)).max() < np.log(_NOISE_FACTOR))


def sky_rms(frame: Float32[np.ndarray, "band y x"]) -> Float64[np.ndarray, " band"]:
    """Standard deviation of the pixels between sources, per band: twice clipped at 2.5 sigma and
    corrected for what a Gaussian loses by that."""
    result = []
    for band in frame.astype(np.float64):
        kept = band.ravel()
        for _ in range(5):
            middle = np.median(kept)
            spread = 1.4826 * np.median(np.abs(kept - middle))
            kept = kept[np.abs(kept - middle) < 2.5 * spread]
        result.append(float(kept.std()) / 0.957)
    return np.array(result)


def find_peaks(
    image: Float32[np.ndarray, "y x"], threshold_sigma: float = 8.0
) -> Int64[np.ndarray, "n 2"]:
    """(x, y) of local maxima of the smoothed image above a threshold in its own noise."""
    smooth = gaussian_filter(image, 2.0)
    noise = 1.4826 * np.median(np.abs(smooth - np.median(smooth)))
    top = (smooth == maximum_filter(smooth, 9)) & (
        smooth - np.median(smooth) > threshold_sigma * noise
    )
    return np.argwhere(top)[:, ::-1]


def _moments(
    image: Float32[np.ndarray, "y x"], peak: Int64[np.ndarray, " 2"], instrument: Instrument
) -> tuple[tuple[float, float], tuple[float, float], float]:
    """Centre, (e1, e2) and half-light radius (arcsec) from moments under a Gaussian weight."""
    y, x = np.mgrid[: image.shape[0], : image.shape[1]]
    cx, cy = float(peak[0]), float(peak[1])
    for _ in range(3):
        weight = np.exp(-0.5 * ((x - cx) ** 2 + (y - cy) ** 2) / 5.0**2) * np.maximum(image, 0)
        # A brighter neighbour must not draw the centre over to itself.
        cx = float(np.clip((weight * x).sum() / weight.sum(), peak[0] - 1.5, peak[0] + 1.5))
        cy = float(np.clip((weight * y).sum() / weight.sum(), peak[1] - 1.5, peak[1] + 1.5))
    dx, dy = x - cx, y - cy
    xx, yy, xy = (float((weight * p).sum() / weight.sum()) for p in (dx * dx, dy * dy, dx * dy))
    # The weight makes an image rounder by about a factor of two in ellipticity.
    e1, e2 = (2.0 * 0.5 * m / (xx + yy) for m in (xx - yy, 2 * xy))
    shrink = min(1.0, 0.4 / max(float(np.hypot(e1, e2)), 1e-9))
    radius = np.hypot(dx, dy)
    inside = radius * instrument.pixel_scale_arcsec < _APERTURE_ARCSEC
    order = np.argsort(radius[inside])
    growth = np.cumsum(image[inside][order])
    half = radius[inside][order][int(np.argmax(growth > 0.5 * growth[-1]))]
    return (cx, cy), (e1 * shrink, e2 * shrink), float(half) * instrument.pixel_scale_arcsec


def _aperture(
    frame: Float32[np.ndarray, "band y x"], centre: tuple[float, float], instrument: Instrument
) -> dict[str, float]:
    y, x = np.mgrid[: frame.shape[1], : frame.shape[2]]
    radius = np.hypot(x - centre[0], y - centre[1]) * instrument.pixel_scale_arcsec
    inside = radius < _APERTURE_ARCSEC
    return {
        band: magnitude(float(frame[k][inside].sum()), instrument.zero_point_mag)
        for k, band in enumerate(instrument.bands)
    }


def load_sources(data: Path | None, split: Split = "training") -> tuple[SourceStamp, ...]:
    """HST COSMOS galaxies (F814W) of one side as source light; empty where absent.

    data: the folder that holds `hst_cosmos/`. Only those that stand out well of their noise, called
    `hst-cosmos-FOLDER-IDENT` after their catalogue.
    """
    if data is None:
        return ()
    found: list[SourceStamp] = []
    for images, catalogue in _SOURCES:
        if (data / images).is_file() and (data / catalogue).is_file():
            found.extend(_stamps(data / images, data / catalogue, split))
    return tuple(found)


def _stamps(images: Path, catalogue: Path, split: Split) -> list[SourceStamp]:
    with fits.open(catalogue) as table, fits.open(images) as file:
        named = [(f"hst-cosmos-{catalogue.parent.name}-{r['IDENT']}", r) for r in table[1].data]
        cleaned = {
            name: clean_stamp(
                np.asarray(file[int(row["GAL_HDU"])].data, dtype=np.float32),
                float(row["NOISE_VARIANCE"]),
            )
            for name, row in named
            if split_of(name) == split
        }
    return [replace(stamp, name=name) for name, stamp in cleaned.items() if stamp is not None]


def clean_stamp(image: Float32[np.ndarray, "y x"], noise_variance: float) -> SourceStamp | None:
    """The central galaxy alone: pixels that join its peak above the smoothed image's noise.

    None where it is too faint or too small to be more than its noise when magnified.
    """
    smooth = gaussian_filter(image, 1.0)
    above, _ = label(smooth > 1.5 * np.sqrt(noise_variance))
    height, width = image.shape
    middle = above[height // 3 : -(height // 3), width // 3 : -(width // 3)]
    if not middle.any():
        return None
    chosen = above == np.bincount(middle[middle > 0]).argmax()
    light = np.where(chosen, smooth, np.float32(0.0))
    snr = light.sum() / np.sqrt(noise_variance * max(int(chosen.sum()), 1))
    if snr < 60.0 or chosen.sum() < 80:
        return None
    y, x = np.mgrid[:height, :width]
    cy, cx = ((axis * light).sum() / light.sum() for axis in (y, x))
    radius = np.hypot(y - cy, x - cx).ravel()
    order = np.argsort(radius)
    growth = np.cumsum(light.ravel()[order])
    half = float(radius[order][int(np.searchsorted(growth, 0.5 * growth[-1]))])
    return SourceStamp(np.asarray(light / light.sum(), dtype=np.float32), max(half, 1.0))


def as_lens_host(rng: np.random.Generator, real: RealHost) -> Host:
    """What a lens model needs of a real galaxy, whose light is the frame itself.

    Redshift, drawn where unknown; velocity dispersion, measured, or from its luminosity within 180
    to 380 km/s.
    """
    known = 0.05 < real.redshift < 0.75
    z = real.redshift if known else priors.truncated_normal(rng, 0.4, 0.12, 0.1, 0.7)
    sigma = real.sigma_km_s
    if not sigma > 0:
        absolute = real.magnitudes["i"] - priors.distance_modulus(z)
        dex = (absolute - priors.M_I) / priors.M_SLOPE + rng.normal(0.0, _SIGMA_SCATTER_DEX)
        sigma = float(np.clip(220.0 * 10.0**dex, 180.0, 380.0))
    return Host(z, sigma, real.magnitudes["i"], real.magnitudes, real.radius_arcsec, real.shape, ())
