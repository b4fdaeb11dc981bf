"""World coordinates of an image from its header cards, through astropy, safe among threads."""

from __future__ import annotations

import math
import re
import threading
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from astropy.io import fits
from astropy.wcs import WCS
from jaxtyping import Float64

from lenspipe.cutouts.faults import UnreadableError
from lenspipe.cutouts.fits.fitsfile import Hdu
from lenspipe.cutouts.geometry import separation_deg

_WCS_CARD = re.compile(
    r"(WCSAXES|NAXIS[12]?|C(TYPE|RVAL|RPIX|DELT|UNIT|ROTA)[12]|CD[12]_[12]|PC[12]_[12]|"
    r"PC00[12]00[12]|P[VS]\d_\d+|[AB]P?_(\d_\d|ORDER)|LONPOLE|LATPOLE|EQUINOX|RADESYS|RADECSYS)$"
)
_DEGREES = {
    "deg": 1.0,
    "arcmin": 1 / 60,
    "arcsec": 1 / 3600,
    "mas": 1 / 3.6e6,
    "rad": math.degrees(1.0),
}
_OLD_PC = re.compile(r"PC00([12])00([12])")


@dataclass(frozen=True, eq=False)
class SkyWcs:
    """Where an image lies on the sky. shape: (y, x); pixel_scale_arcsec: geometric mean of the
    two axes; centre_deg: (ra, dec) of the middle; radius_deg: from there to the farthest corner."""

    wcs: Any
    shape: tuple[int, int]
    pixel_scale_arcsec: float
    centre_deg: tuple[float, float]
    radius_deg: float
    lock: threading.Lock

    def pixels(
        self, ra_deg: Float64[np.ndarray, " n"], dec_deg: Float64[np.ndarray, " n"]
    ) -> tuple[Float64[np.ndarray, " n"], Float64[np.ndarray, " n"]]:
        """(x, y) from 0 at the centre of the first pixel; NaN where the projection has none."""
        with self.lock:  # wcslib's structures are not safe among threads
            x, y = self.wcs.all_world2pix(ra_deg, dec_deg, 0, ra_dec_order=True, quiet=True)
        return np.asarray(x, dtype=np.float64), np.asarray(y, dtype=np.float64)


def sky_wcs(hdu: Hdu) -> SkyWcs:
    """The celestial WCS of an image. UnreadableError where the header has none."""
    shape = hdu.shape
    if shape is None:
        raise UnreadableError("no two-dimensional image")
    wcs = celestial(hdu)
    y = np.array([(shape[0] - 1) / 2, -0.5, -0.5, shape[0] - 0.5, shape[0] - 0.5])
    x = np.array([(shape[1] - 1) / 2, -0.5, shape[1] - 0.5, -0.5, shape[1] - 0.5])
    ra, dec = wcs.all_pix2world(x, y, 0, ra_dec_order=True)
    if not (np.isfinite(ra).all() and np.isfinite(dec).all()):
        raise UnreadableError("the WCS puts no position on the corners of the image")
    radius = float(separation_deg(ra[1:], dec[1:], ra[0], dec[0]).max())
    centre = (float(ra[0]), float(dec[0]))
    return SkyWcs(wcs, shape, pixel_scale(hdu), centre, radius, threading.Lock())


@dataclass(frozen=True)
class Disc:
    """A circle on the sky that holds a whole image. centre_deg: (ra, dec)."""

    centre_deg: tuple[float, float]
    radius_deg: float


_TANGENT = re.compile(r"(RA---|DEC--)TAN(-SIP)?$")
# Terms of distortion move a corner by far less.
_DISC_MARGIN, _DISC_REST_DEG = 1.1, 0.01


def disc_of(hdu: Hdu) -> Disc | None:
    """A circle around an image from its cards, far cheaper than its WCS; None where it takes one.

    Gnomonic projection (Calabretta & Greisen 2002, A&A 395, 1077, section 5.1.3): two points are
    nearer to each other on the sky than on the plane, so the half diagonal bounds the image.
    """
    kinds = [str(hdu.value(f"CTYPE{axis}")) for axis in (1, 2)]
    if hdu.shape is None or kinds[0][:2] != "RA" or not all(map(_TANGENT.match, kinds)):
        return None
    units = {plane_unit(hdu, axis) for axis in (1, 2)}
    turned = any(key.startswith(("CROTA", "PV")) for key in hdu.cards)
    dec0 = hdu.number("CRVAL2")
    north_up = hdu.number("LONPOLE", 0.0 if dec0 >= 90.0 else 180.0) == 180.0
    if turned or not north_up or units != {"deg"}:
        return None
    height, width = hdu.shape
    (a, b), (c, d) = plane_matrix(hdu)
    x = (width + 1) / 2 - hdu.number("CRPIX1", 0.0)
    y = (height + 1) / 2 - hdu.number("CRPIX2", 0.0)
    half = max(math.hypot(a * width + s * b * height, c * width + s * d * height) for s in (1, -1))
    radius = half / 2 * _DISC_MARGIN + _DISC_REST_DEG
    centre = _from_plane(hdu.number("CRVAL1"), dec0, a * x + b * y, c * x + d * y)
    return Disc(centre, radius) if radius <= 90.0 and all(map(math.isfinite, centre)) else None


def _from_plane(ra0: float, dec0: float, x_deg: float, y_deg: float) -> tuple[float, float]:
    """(ra, dec) in degrees of a point on the gnomonic plane that touches the sky at (ra0, dec0)."""
    x, y, d0 = math.radians(x_deg), math.radians(y_deg), math.radians(dec0)
    across = math.cos(d0) - y * math.sin(d0)
    ra = ra0 + math.degrees(math.atan2(x, across))
    dec = math.degrees(math.atan2(math.sin(d0) + y * math.cos(d0), math.hypot(x, across)))
    return ra % 360.0, dec


def centre_position(hdu: Hdu) -> tuple[float, float]:
    """(ra, dec) in degrees of the pixel that a stamp's source falls on."""
    if hdu.shape is None:
        raise UnreadableError("no two-dimensional image")
    height, width = hdu.shape
    ra, dec = celestial(hdu).all_pix2world([width // 2], [height // 2], 0, ra_dec_order=True)
    return float(ra[0]) % 360.0, float(dec[0])


def celestial(hdu: Hdu) -> Any:
    """astropy's WCS of the two image axes; only the cards that it needs are parsed."""
    cards = [
        _standard_card(hdu, key, card) for key, card in hdu.cards.items() if _WCS_CARD.match(key)
    ]
    if hdu.compressed:
        cards = [card for card in cards if not card.startswith(b"NAXIS")]
    try:
        wcs = WCS(fits.Header.fromstring(b"".join(cards)), fix=False, naxis=2)
        wcs.wcs.set()
        if not wcs.has_celestial or wcs.wcs.lngtyp != "RA":
            raise UnreadableError("the header has no WCS in RA and DEC")
    except UnreadableError:
        raise
    except Exception as error:  # astropy and wcslib raise a dozen unrelated types on bad cards
        raise UnreadableError(f"WCS: {error}") from error
    return wcs


def _standard_card(hdu: Hdu, key: str, card: bytes) -> bytes:
    """A card under today's name; a unit as the standard spells it, since wcslib takes no other."""
    if key in ("CUNIT1", "CUNIT2"):
        return f"{key}  = '{plane_unit(hdu, int(key[-1])):<8}'".ljust(80).encode()
    return f"{_standard_key(key):<8}".encode() + card[8:]


def _standard_key(key: str) -> str:
    """Today's name of a card: astropy warns of RADECSYS (RADESYS) and of PC001002 (PC1_2)."""
    if key == "RADECSYS":
        return "RADESYS"
    old = _OLD_PC.fullmatch(key)
    return f"PC{old[1]}_{old[2]}" if old else key


def pixel_scale(hdu: Hdu) -> float:
    """Arcsec per pixel at the reference point: square root of the area of a pixel."""
    return _pixel_scale(tuple(map(hdu.cards.get, _SCALE_CARDS)))


_SCALE_CARDS = tuple(
    pattern.format(i, j)
    for pattern in ("CD{}_{}", "PC{}_{}", "PC{:03d}{:03d}", "CDELT{}", "CUNIT{}")
    for i in (1, 2)
    for j in (1, 2)
)


@lru_cache(maxsize=1024)  # the stamps of a survey share them
def _pixel_scale(cards: tuple[bytes | None, ...]) -> float:
    named = zip(_SCALE_CARDS, cards, strict=True)
    hdu = Hdu({key: card for key, card in named if card is not None}, 0)
    (a, b), (c, d) = plane_matrix(hdu)
    scale = math.sqrt(abs(a * d - b * c)) * 3600.0
    if not 0.0 < scale < 3.6e5:
        raise UnreadableError(f"pixel scale: expected a positive number, found {scale}")
    return scale


def plane_matrix(hdu: Hdu) -> tuple[tuple[float, float], tuple[float, float]]:
    """Degrees on the projection's plane per pixel: rows are axes of the plane."""
    if any(f"CD{i}_{j}" in hdu.cards for i in (1, 2) for j in (1, 2)):
        rows = [[hdu.number(f"CD{i}_{j}", 0.0) for j in (1, 2)] for i in (1, 2)]
    else:
        rows = [[hdu.number(f"CDELT{i}") * _pc(hdu, i, j) for j in (1, 2)] for i in (1, 2)]
    across, up = (_DEGREES[plane_unit(hdu, axis)] for axis in (1, 2))
    return (rows[0][0] * across, rows[0][1] * across), (rows[1][0] * up, rows[1][1] * up)


def plane_unit(hdu: Hdu, axis: int) -> str:
    """Unit of an axis of the plane; without a card it is deg. UnreadableError for one that is no
    angle of the standard (FITS 4.0, table 4)."""
    told = str(hdu.value(f"CUNIT{axis}") or "").strip()
    unit = told.lower() or "deg"
    if unit in ("degree", "degrees"):
        return "deg"
    if unit not in _DEGREES:
        expected = ", ".join(_DEGREES)
        raise UnreadableError(f"card CUNIT{axis}: expected one of {expected}, found {told!r}")
    return unit


def _pc(hdu: Hdu, i: int, j: int) -> float:
    old = f"PC{i:03d}{j:03d}"
    key = old if old in hdu.cards else f"PC{i}_{j}"
    return hdu.number(key, 1.0 if i == j else 0.0)
