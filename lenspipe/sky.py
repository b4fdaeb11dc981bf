"""Positions on the sky, distances of them, and which of some lie together."""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Float64, Int64

_SLACK_DEG = 1e-9  # a pair that is just within the radius must not be lost to rounding


def on_sky(
    ra_deg: Float64[np.ndarray, " n"], dec_deg: Float64[np.ndarray, " n"]
) -> Bool[np.ndarray, " n"]:
    """Whether ra is within -180..360 (both conventions are in use) and dec within -90..90 deg."""
    return np.asarray((ra_deg >= -180.0) & (ra_deg <= 360.0) & (np.abs(dec_deg) <= 90.0))


def wrapped(ra_deg: Float64[np.ndarray, " n"]) -> Float64[np.ndarray, " n"]:
    """Right ascensions from 0 to below 360 deg."""
    turned = np.mod(ra_deg, 360.0)
    return np.where(turned == 360.0, 0.0, turned)  # mod of a tiny negative number rounds to 360


def separation_deg(
    ra1_deg: float | Float64[np.ndarray, " n"],
    dec1_deg: float | Float64[np.ndarray, " n"],
    ra2_deg: Float64[np.ndarray, " n"],
    dec2_deg: Float64[np.ndarray, " n"],
) -> Float64[np.ndarray, " n"]:
    """Angular distance of positions by Vincenty's formula, exact at all distances."""
    from astropy.coordinates import angular_separation

    radians = (np.radians(x) for x in (ra1_deg, dec1_deg, ra2_deg, dec2_deg))
    return np.asarray(np.degrees(angular_separation(*radians)), np.float64)


def pairs_within(
    ra_deg: Float64[np.ndarray, " n"],
    dec_deg: Float64[np.ndarray, " n"],
    other_ra_deg: Float64[np.ndarray, " m"],
    other_dec_deg: Float64[np.ndarray, " m"],
    radius_arcsec: float,
) -> tuple[Int64[np.ndarray, " k"], Int64[np.ndarray, " k"], Float64[np.ndarray, " k"]]:
    """(position, other position, separation in arcsec) wherever the two are within a radius.

    For a few thousand others: pairs in the same strip of declination are compared. Positions that
    are none (NaN, |dec| above 90°) are near nothing.
    """
    usable, others = (
        np.flatnonzero(np.isfinite(ra) & (np.abs(dec) <= 90.0))
        for ra, dec in ((ra_deg, dec_deg), (other_ra_deg, other_dec_deg))
    )
    rows, columns = _in_strip(dec_deg[usable], other_dec_deg[others], radius_arcsec / 3600.0)
    rows, columns = usable[rows], others[columns]
    far = 3600.0 * separation_deg(
        ra_deg[rows], dec_deg[rows], other_ra_deg[columns], other_dec_deg[columns]
    )
    within = far <= radius_arcsec
    return rows[within], columns[within], far[within]


def _in_strip(
    dec: Float64[np.ndarray, " n"], other: Float64[np.ndarray, " m"], radius_deg: float
) -> tuple[Int64[np.ndarray, " k"], Int64[np.ndarray, " k"]]:
    """Pairs whose declinations are within a radius: all that are within it on the sky."""
    order = np.argsort(other, kind="stable")
    rising = other[order]
    low = np.searchsorted(rising, dec - radius_deg - _SLACK_DEG)
    counts = np.searchsorted(rising, dec + radius_deg + _SLACK_DEG, side="right") - low
    rows = np.repeat(np.arange(len(dec)), counts)
    begins = np.repeat(np.cumsum(counts) - counts, counts)
    return rows, order[np.arange(len(rows)) - begins + np.repeat(low, counts)]
