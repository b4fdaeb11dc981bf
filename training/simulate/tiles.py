"""Coadd tiles on the sky: where they lie, and how they are written as FITS.

All tiles share one tangent projection, as the skycells of Pan-STARRS do: tiles that overlap see
the same pixel grid, shifted by whole pixels.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from astropy.io import fits
from astropy.wcs import WCS
from jaxtyping import Float32, Float64, UInt8

BAD_COLUMN = 1  # bit 0: a dead or hot column of the detector
SATURATED = 2  # bit 1: full well, and the charge that bled along the column
BRIGHT_STAR = 4  # bit 2: near a saturated star; the pixels are good
BAD_BITS = (0, 1)

# Rice compression keeps this many steps per sigma of the noise (astropy `quantize_level`):
# the error, 1/16/sqrt(12) = 2% of sigma, adds 0.02% to the noise.
QUANTIZE_LEVEL = 16.0


@dataclass(frozen=True)
class Mosaic:
    """The pixel grid that all tiles are windows of.

    ra_deg, dec_deg: tangent point, at the middle of the grid. shape: (y, x) pixels.
    """

    ra_deg: float
    dec_deg: float
    shape: tuple[int, int]
    pixel_scale_arcsec: float

    def wcs(self) -> WCS:
        """TAN projection, north up, east to the left."""
        wcs = WCS(naxis=2)
        height, width = self.shape
        wcs.wcs.ctype = ["RA---TAN", "DEC--TAN"]
        wcs.wcs.cunit = ["deg", "deg"]
        wcs.wcs.crval = [self.ra_deg, self.dec_deg]
        wcs.wcs.crpix = [(width + 1) / 2, (height + 1) / 2]
        wcs.wcs.cdelt = [-self.pixel_scale_arcsec / 3600, self.pixel_scale_arcsec / 3600]
        wcs.wcs.radesys = "ICRS"
        wcs.wcs.set()
        return wcs

    def sky(
        self, x: Float64[np.ndarray, " n"], y: Float64[np.ndarray, " n"]
    ) -> tuple[Float64[np.ndarray, " n"], Float64[np.ndarray, " n"]]:
        """Zero-based mosaic pixels to (ra, dec) in degrees."""
        ra, dec = self.wcs().pixel_to_world_values(x, y)
        return np.asarray(ra, dtype=np.float64), np.asarray(dec, dtype=np.float64)


@dataclass(frozen=True)
class Tile:
    """A square window of the mosaic. x, y: mosaic pixel of its first column and row."""

    name: str
    x: int
    y: int
    side: int

    @property
    def window(self) -> tuple[slice, slice]:
        """Rows and columns of the mosaic that the tile shows."""
        return slice(self.y, self.y + self.side), slice(self.x, self.x + self.side)

    def wcs(self, mosaic: Mosaic) -> WCS:
        """The mosaic's projection with the tile's first pixel at (1, 1)."""
        wcs = mosaic.wcs()
        wcs.wcs.crpix = wcs.wcs.crpix - np.array([self.x, self.y])
        wcs.wcs.set()
        return wcs


@dataclass(frozen=True)
class Exposure:
    """How one band of one tile was observed.

    zero_point_mag: AB magnitude of one count. exptime_s: sum of the exposures. gain: electrons per
    count. psf_fwhm_arcsec. background_rms: noise of an empty pixel, counts. saturation: counts
    at full well.
    """

    band: str
    zero_point_mag: float
    exptime_s: float
    gain: float
    psf_fwhm_arcsec: float
    background_rms: float
    saturation: float


def layout(
    *,
    columns: int,
    rows: int,
    side: int,
    overlap: int,
    centre_deg: tuple[float, float],
    pixel_scale_arcsec: float,
) -> tuple[Mosaic, tuple[Tile, ...]]:
    """A grid of square tiles, `side` pixels each, neighbours share `overlap` pixels."""
    step = side - overlap
    shape = (step * (rows - 1) + side, step * (columns - 1) + side)
    tiles = tuple(
        Tile(name=f"t{row}{column}", x=column * step, y=row * step, side=side)
        for row in range(rows)
        for column in range(columns)
    )
    return Mosaic(*centre_deg, shape, pixel_scale_arcsec), tiles


def header(tile: Tile, mosaic: Mosaic, exposure: Exposure) -> fits.Header:
    """WCS and observation of one band of one tile."""
    cards = tile.wcs(mosaic).to_header()
    cards["OBJECT"] = (tile.name, "tile")
    cards["FILTER"] = (exposure.band, "band")
    cards["BUNIT"] = ("count", "sky-subtracted counts")
    cards["MAGZERO"] = (exposure.zero_point_mag, "[mag] AB magnitude of one count")
    cards["EXPTIME"] = (exposure.exptime_s, "[s] sum of the exposures")
    cards["GAIN"] = (exposure.gain, "[electron/count]")
    cards["PSF_FWHM"] = (exposure.psf_fwhm_arcsec, "[arcsec]")
    cards["BKGRMS"] = (exposure.background_rms, "[count] noise of an empty pixel")
    cards["SATURATE"] = (exposure.saturation, "[count] full well")
    return cards


def mask_header() -> fits.Header:
    """What the bits of the mask mean."""
    cards = fits.Header()
    for bit, meaning in enumerate(("BAD_COLUMN", "SATURATED", "BRIGHT_STAR")):
        cards[f"MP_{bit}"] = (meaning, f"bit {bit}")
    return cards


def write_tile(
    path: Path,
    counts: Float32[np.ndarray, "y x"],
    mask: UInt8[np.ndarray, "y x"],
    cards: fits.Header,
) -> None:
    """One band of one tile with its mask in extension MASK; `.fz` means Rice-compressed pixels.

    No dates and no random dither seed: equal pixels give equal bytes.
    """
    name = "MASK"
    if path.suffix == ".fz":
        image = fits.CompImageHDU(
            counts,
            cards,
            name="IMAGE",
            compression_type="RICE_1",
            quantize_level=QUANTIZE_LEVEL,
            quantize_method=1,
            dither_seed=1,
        )
        bits = fits.CompImageHDU(mask, mask_header(), name=name, compression_type="RICE_1")
        hdus = fits.HDUList([fits.PrimaryHDU(), image, bits])
    else:
        bits = fits.ImageHDU(mask, mask_header(), name=name)
        hdus = fits.HDUList([fits.PrimaryHDU(counts, cards), bits])
    hdus.writeto(path, overwrite=True)
