"""Colours of galaxies, quasars and stars in any filters, at any redshift.

Spectra give the colours; where Pan-STARRS g, r, i were measured, the measured colours with their
scatter are drawn first, and the spectrum is chosen and warped until it has them exactly. So draws
for Pan-STARRS are the measured ones, and other filters follow from the nearest spectrum.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

from lenspipe.errors import InputError
from training.simulate import sed
from training.simulate.instrument import load_instrument
from training.simulate.passband import Filters, Passband

if TYPE_CHECKING:
    from jaxtyping import Float64

Colours = dict[str, float]

# Colours of passive galaxies against redshift, AB, Pan-STARRS bands: medians of 150,000 BOSS/eBOSS
# luminous red galaxies (SDSS model colours, put on the PS1 system by the relations of Tonry et al.
# 2012, table 6), extended below redshift 0.12 to the red sequence of nearby clusters.
REDSHIFTS = np.array([0.0, 0.05, 0.10, 0.15, 0.20, 0.25, 0.30, 0.35, 0.40, 0.45, 0.50, 0.60, 0.70])
G_R = np.array([0.66, 0.78, 0.90, 1.02, 1.15, 1.26, 1.38, 1.48, 1.54, 1.57, 1.58, 1.57, 1.55])
R_I = np.array([0.32, 0.36, 0.40, 0.45, 0.48, 0.51, 0.55, 0.60, 0.66, 0.74, 0.83, 1.00, 1.10])

_MEASURED = ("g", "r", "i")
_GRID_Z = np.arange(0.0, 6.51, 0.02)
# Filters within this of the bluest or reddest measured one (in ln wavelength) need no own scatter.
_SAME = 0.03


def _passive(rng: np.random.Generator, redshift: float) -> tuple[float, float]:
    """(g - r, r - i) of an early type: the red sequence with its scatter."""
    g_r = np.interp(redshift, REDSHIFTS, G_R) + rng.normal(0.0, 0.06)
    r_i = np.interp(redshift, REDSHIFTS, R_I) + rng.normal(0.0, 0.035)
    return float(g_r), float(r_i)


def _disc(rng: np.random.Generator, redshift: float) -> tuple[float, float]:
    """(g - r, r - i) of a star-forming disc; reddens with redshift up to 0.4."""
    g_r = 0.45 + 0.7 * min(redshift, 0.4) + rng.normal(0.0, 0.13)
    r_i = 0.20 + 0.25 * min(redshift, 0.4) + 0.3 * (g_r - 0.45) + rng.normal(0.0, 0.05)
    return float(g_r), float(r_i)


def _source(rng: np.random.Generator, redshift: float) -> tuple[float, float]:
    """(g - r, r - i) of a star-forming galaxy at redshift 0.8 to 3: blue, with a redder tail."""
    del redshift
    g_r = rng.normal(0.20, 0.18) + (rng.exponential(0.35) if rng.random() < 0.2 else 0.0)
    return float(g_r), float(rng.normal(0.18, 0.14) + 0.25 * max(g_r - 0.3, 0.0))


def _star(rng: np.random.Generator, redshift: float) -> tuple[float, float]:
    """(g - r, r - i) on the stellar locus (Covey et al. 2007, arXiv:0707.4473)."""
    del redshift
    g_i = float(np.clip(rng.choice([rng.normal(0.7, 0.3), rng.normal(2.3, 0.45)]), -0.3, 3.4))
    r_i = np.interp(
        g_i, [-0.3, 0.4, 0.8, 1.2, 1.7, 2.2, 2.8, 3.4], [-0.15, 0.1, 0.2, 0.32, 0.5, 0.85, 1.4, 1.9]
    )
    return float(g_i - float(r_i) + rng.normal(0, 0.03)), float(r_i)


def _blend(*stages: Float64[np.ndarray, " w"], steps: int = 6) -> Float64[np.ndarray, "member w"]:
    """A sequence of spectra from the first stage over the others to the last."""
    between = [
        (1 - t) * first + t * second
        for first, second in pairwise(stages)
        for t in np.arange(steps) / steps
    ]
    return np.stack([*between, stages[-1]])


def _passive_spectra() -> Float64[np.ndarray, "member w"]:
    red, younger = sed.spectrum("elliptical"), sed.spectrum("spiral_sbc")
    return _blend(0.6 * red + 0.4 * younger, red, red * sed.dust(0.2))


def _disc_spectra() -> Float64[np.ndarray, "member w"]:
    names = ("irregular", "spiral_scd", "spiral_sbc", "elliptical")
    return _blend(*(sed.spectrum(name) for name in names))


def _source_spectra() -> Float64[np.ndarray, "member w"]:
    blue, late = sed.spectrum("starburst_3"), sed.spectrum("irregular")
    return _blend(sed.spectrum("starburst_2"), blue, late, late * sed.dust(0.5))


def _dusty_spectra() -> Float64[np.ndarray, "member w"]:
    blue = sed.spectrum("starburst_2")
    return np.stack([blue * sed.dust(e_b_v) for e_b_v in np.linspace(0.4, 0.9, 9)])


def _quasar_spectra() -> Float64[np.ndarray, "member w"]:
    # Slopes of single quasars scatter by 0.3 about the composite's (Vanden Berk et al. 2001).
    composite = sed.spectrum("quasar")
    slopes = 0.3 * np.array([-1.5, -1.0, -0.67, -0.43, -0.21, 0.0, 0.21, 0.43, 0.67, 1.0, 1.5])
    return np.stack([composite * (sed.REST_ANGSTROM / 5500.0) ** slope for slope in slopes])


def _star_spectra() -> Float64[np.ndarray, "member w"]:
    types = ("a0v", "f0v", "f5v", "g2v", "k0v", "k3v", "k7v", "m0v", "m2v", "m3v", "m4v", "m5v")
    return _blend(*(sed.spectrum(f"star_{name}") for name in (*types, "m6v")), steps=4)


@dataclass(frozen=True)
class Kind:
    """Objects of one kind.

    spectra: from one end of the sequence to the other; measured: draws (g - r, r - i) of
    Pan-STARRS at a redshift, within `redshifts`; None: any of the spectra is as likely.
    scatter: mag of own scatter per unit of ln wavelength away from the bands that were measured.
    """

    spectra: Callable[[], Float64[np.ndarray, "member w"]]
    measured: Callable[[np.random.Generator, float], tuple[float, float]] | None
    redshifts: tuple[float, float]
    scatter: float


KINDS: Mapping[str, Kind] = {
    "passive": Kind(_passive_spectra, _passive, (0.0, 0.7), 0.10),
    "disc": Kind(_disc_spectra, _disc, (0.0, 0.6), 0.20),
    "source": Kind(_source_spectra, _source, (0.8, 3.0), 0.25),
    "dusty": Kind(_dusty_spectra, None, (0.0, 6.5), 0.25),
    "quasar": Kind(_quasar_spectra, None, (0.0, 6.5), 0.10),
    "star": Kind(_star_spectra, _star, (0.0, 0.0), 0.08),
}


def _kind(name: str) -> Kind:
    if name not in KINDS:
        raise InputError("kind of spectrum", f"one of {', '.join(KINDS)}", repr(name))
    return KINDS[name]


@lru_cache(maxsize=1)
def measured_filters() -> dict[str, Passband]:
    """Pan-STARRS g, r, i: what colours were measured in, and what magnitudes are drawn in."""
    filters = load_instrument("ps1").filters
    return {band: filters[band] for band in _MEASURED}


@dataclass(frozen=True)
class _Table:
    """Synthetic magnitudes of a kind: asked bands first, then Pan-STARRS g, r, i."""

    magnitudes: Float64[np.ndarray, "z member band"]

    def at(self, redshift: float) -> Float64[np.ndarray, "member band"]:
        place = min(max(redshift, 0.0), float(_GRID_Z[-1])) / (_GRID_Z[1] - _GRID_Z[0])
        low = min(int(place), len(_GRID_Z) - 2)
        part = place - low
        return np.asarray((1 - part) * self.magnitudes[low] + part * self.magnitudes[low + 1])


@lru_cache(maxsize=64)
def _table(kind: str, filters: tuple[Passband, ...]) -> _Table:
    spectra = KINDS[kind].spectra()
    grid = [0.0] if kind == "star" else _GRID_Z
    values = [sed.ab_magnitudes(spectra, z, filters) for z in grid]
    return _Table(np.stack(values if len(values) > 1 else values * len(_GRID_Z)))


def synthetic(
    kind: str, redshift: float, filters: Filters
) -> Float64[np.ndarray, "member band_and_gri"]:
    """Magnitudes, up to one constant each, of every spectrum of a kind as it is, without warp or
    scatter: in `filters`, then in Pan-STARRS g, r, i."""
    _kind(kind)
    return _table(kind, (*filters.values(), *measured_filters().values())).at(redshift)


def draw(
    rng: np.random.Generator,
    kind: str,
    redshift: float,
    filters: Filters,
    *,
    reference: str = "i",
) -> Colours:
    """Magnitude in each of `filters` less that in a Pan-STARRS band, of a random object of `kind`.

    reference: g, r or i, the Pan-STARRS band that magnitudes are drawn in. Outside of the redshifts
    that `KINDS` has measured colours for, the warp is that of the nearest such redshift.
    InputError: no such kind.
    """
    measured = _kind(kind).measured
    given = None if measured is None else measured(rng, redshift)
    return _warped(rng, kind, redshift, filters, given, reference)


def of_measured(
    rng: np.random.Generator,
    kind: str,
    redshift: float,
    g_r_i: tuple[float, float],
    filters: Filters,
) -> Colours:
    """As `draw`, less the Pan-STARRS i magnitude, for an object whose (g - r, r - i) is known."""
    return _warped(rng, kind, redshift, filters, g_r_i, "i")


def _warped(
    rng: np.random.Generator,
    kind: str,
    redshift: float,
    filters: Filters,
    given: tuple[float, float] | None,
    reference: str,
) -> Colours:
    seen = synthetic(kind, redshift, filters)
    if given is None:
        member, warp = int(rng.integers(len(seen))), np.zeros(3)
    else:
        member, warp = _nearest(kind, redshift, filters, given)
    ours, gri = seen[member, : len(filters)], seen[member, len(filters) :] + warp
    warped = ours + _warp_at(filters, warp) + _own_scatter(rng, _kind(kind).scatter, filters)
    return dict(zip(filters, (warped - gri[_MEASURED.index(reference)]).tolist(), strict=True))


def _nearest(
    kind: str, redshift: float, filters: Filters, given: tuple[float, float]
) -> tuple[int, Float64[np.ndarray, " gri"]]:
    """Which spectrum of the kind comes nearest to (g - r, r - i), and what it then lacks in g, r, i
    (mag, none in i)."""
    low, high = _kind(kind).redshifts
    nearest = synthetic(kind, min(max(redshift, low), high), filters)[:, len(filters) :]
    g_r, r_i = given
    lacks = np.stack(
        [
            g_r - (nearest[:, 0] - nearest[:, 1]) + r_i - (nearest[:, 1] - nearest[:, 2]),
            r_i - (nearest[:, 1] - nearest[:, 2]),
            np.zeros(len(nearest)),
        ],
        axis=1,
    )
    member = int(np.argmin((lacks[:, 0] - lacks[:, 1]) ** 2 + lacks[:, 1] ** 2))
    return member, lacks[member]


def _ln_wavelengths(filters: Filters) -> Float64[np.ndarray, " band"]:
    return np.log([band.mean_angstrom for band in filters.values()])


def _warp_at(filters: Filters, warp: Float64[np.ndarray, " gri"]) -> Float64[np.ndarray, " band"]:
    """The warp at each filter: linear in ln wavelength between g, r, i, constant beyond."""
    at = np.interp(_ln_wavelengths(filters), _ln_wavelengths(measured_filters()), warp)
    return np.asarray(at)


def _own_scatter(
    rng: np.random.Generator, scatter: float, filters: Filters
) -> Float64[np.ndarray, " band"]:
    """One deviate for all filters bluer than g and one for all redder than i, growing outwards."""
    at, measured = _ln_wavelengths(filters), _ln_wavelengths(measured_filters())
    bluer, redder = measured[0] - at, at - measured[-1]
    total = np.zeros(len(at))
    for beyond in (bluer, redder):
        if (beyond > _SAME).any():
            total += scatter * rng.standard_normal() * np.maximum(beyond, 0.0)
    return total


# How light changes by wavelength, mag at u, g, r, i, H: young spiral arms, and dust across a disc.
YOUNG_ARMS = (-1.6, -1.0, 0.0, 0.3, 0.6)
EDGE_ON_DUST = (2.3, 1.5, 0.5, 0.0, -0.9)
_TINT_U, _TINT_H = 3600.0, 16000.0


def tinted(
    magnitudes: Mapping[str, float], filters: Filters, tint: tuple[float, ...], amount: float
) -> dict[str, float]:
    """Magnitudes with a tint, such as `YOUNG_ARMS`, of so many mag added."""
    nodes = [np.log(_TINT_U), *_ln_wavelengths(measured_filters()), np.log(_TINT_H)]
    shift = amount * np.interp(_ln_wavelengths(filters), nodes, tint)
    return {band: magnitudes[band] + float(d) for band, d in zip(filters, shift, strict=True)}
