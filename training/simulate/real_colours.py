"""Colours of real faint galaxies, for lensed sources: measured in Hyper Suprime-Cam blends."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from training.simulate.hosts.hsc import name_of
from training.simulate.real import Split, split_of

if TYPE_CHECKING:
    from jaxtyping import Float32, Float64

FILES = ("hsc_cosmos/blends/*.npz",)
_GRI = slice(0, 3)  # of the files' grizy
_PIXEL_SCALE_ARCSEC = 0.168
_APERTURE_ARCSEC = 0.7
# Another peak within this distance would give its light to the aperture.
_ALONE_ARCSEC = 1.2
_LEAST_SNR = 10.0
# Redder in g - i are galaxies nearer than sources are.
_REDDEST = 1.3


def load_colours(data: Path | None, split: Split = "training") -> Float64[np.ndarray, "n 2"]:
    """(g - r, r - i) of blue galaxies of i 22 to 26 in one side's blends; none where the data is
    absent.

    Aperture magnitudes of peaks that stand alone, S/N 10 or more in each of g, r, i. The filters
    are taken for Pan-STARRS's, from which they differ by some 0.02 mag for blue galaxies.
    """
    paths = [p for f in FILES for p in sorted(data.glob(f))] if data is not None else []
    chosen = [path for path in paths if split_of(name_of(path)) == split]
    found = [colour for path in chosen for colour in _of_blend(path)]
    return np.array(found, dtype=np.float64).reshape(-1, 2)


def _of_blend(path: Path) -> list[tuple[float, float]]:
    with np.load(path, allow_pickle=False) as file:
        images, weights = file["images"][_GRI], file["weights"][_GRI]
        peaks = np.asarray(file["peaks"], dtype=np.float64)
    alone = [peak for peak in peaks if _distance(peaks, peak) > _ALONE_ARCSEC]
    colours = (_colour(images, weights, (float(x), float(y))) for x, y in alone)
    return [c for c in colours if c is not None and sum(c) < _REDDEST]


def _distance(peaks: Float64[np.ndarray, "n 2"], peak: Float64[np.ndarray, " 2"]) -> float:
    """To the nearest other peak, arcsec."""
    apart = np.sort(np.hypot(*(peaks - peak).T)) * _PIXEL_SCALE_ARCSEC
    return float(apart[1]) if len(apart) > 1 else np.inf


def _colour(
    images: Float32[np.ndarray, "3 y x"],
    weights: Float32[np.ndarray, "3 y x"],
    at: tuple[float, float],
) -> tuple[float, float] | None:
    """None where a pixel is masked or the galaxy is too faint."""
    y, x = np.mgrid[: images.shape[1], : images.shape[2]]
    inside = np.hypot(x - at[0], y - at[1]) * _PIXEL_SCALE_ARCSEC <= _APERTURE_ARCSEC
    if not inside.any() or not (weights[:, inside] > 0).all():
        return None
    flux = images[:, inside].sum(axis=1, dtype=np.float64)
    noise = np.sqrt((1.0 / weights[:, inside].astype(np.float64)).sum(axis=1))
    if not (flux > _LEAST_SNR * noise).all():
        return None
    g_r, r_i = 2.5 * np.log10(flux[1:] / flux[:-1])
    return float(g_r), float(r_i)
