"""Stamps of candidates as pictures and as FITS, by rank."""

from __future__ import annotations

import io
import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from typing import Any

import numpy as np
import zarr
from jaxtyping import Float32, Float64, UInt8
from matplotlib.image import imsave

from lenspipe.catalogue.candidates import EXPLANATION, IMAGES, array_of, open_candidates
from lenspipe.errors import CorruptRunError, InputError
from lenspipe.pages.colour import asinh_rgb, band_weights
from lenspipe.pages.lens_light import subtract_lens_light
from lenspipe.run_directory import RunDirectory

_TYPICAL = 200  # stamps that colours are balanced on
_LARGEST_SCALE = 16
_KEPT_BYTES = 64 * 2**20  # of the chunks of each array that are kept decoded
_PLACE = ("object_id", "ra", "dec")
_FAINT, _BRIGHT = 1.0, 99.5  # percentiles between which a stretch runs
Grey = Float64[np.ndarray, "y x"]


@dataclass(frozen=True)
class Image:
    """Pixels of one image input of a candidate. pixels: NaN where none could be read."""

    pixels: Float32[np.ndarray, "band y x"]
    bands: tuple[str, ...]
    pixel_scale_arcsec: float
    zero_point_mag: float | None
    ra_deg: float
    dec_deg: float
    object_id: str
    explanation: Float32[np.ndarray, "y x"] | None


class Stamps:
    """The pixels in RUN/candidates.zarr. InputError where the run has no candidates.

    Safe to use from several threads. A page shows neighbours: what one tile decoded, the others
    find.
    """

    def __init__(self, run: RunDirectory) -> None:
        group = open_candidates(run)
        if group is None:
            raise InputError("run", "a run with candidates", f"{run.url} without any")
        names = sorted(_group_of(group, IMAGES).array_keys())
        if not names:
            raise CorruptRunError("candidates.zarr/images: lost: lenspipe run makes it anew")
        self.inputs: tuple[str, ...] = tuple(names)
        self._images = {name: _Rows(array_of(group, f"{IMAGES}/{name}")) for name in names}
        self._maps = _Rows(array_of(group, EXPLANATION)) if EXPLANATION in group else None
        self._places = {name: np.asarray(array_of(group, name)[:]) for name in _PLACE}
        self.count = len(self._places["object_id"])

    def image(self, rank: int, name: str | None = None) -> Image:
        """One candidate's image. rank: from 1. name: of the image input, the first by default."""
        if not 1 <= rank <= self.count:
            raise InputError("rank", f"1 to {self.count}", rank)
        name = self.inputs[0] if name is None else name
        if name not in self.inputs:
            raise InputError("image", f"one of {', '.join(self.inputs)}", repr(name[:80]))
        row = rank - 1
        images = self._images[name]
        zero_point = images.told.get("zero_point_mag")
        object_id, ra_deg, dec_deg = (self._places[each][row].item() for each in _PLACE)
        return Image(
            pixels=np.asarray(images[row], np.float32),
            bands=tuple(map(str, images.told["bands"])),
            pixel_scale_arcsec=float(images.told["pixel_scale_arcsec"]),
            zero_point_mag=None if zero_point is None else float(zero_point),
            ra_deg=float(ra_deg),
            dec_deg=float(dec_deg),
            object_id=str(object_id),
            explanation=None if self._maps is None else np.asarray(self._maps[row], np.float32),
        )

    def weights(self, name: str | None = None) -> Float64[np.ndarray, " band"]:
        """Factors of the bands in colour pictures; see `pages.colour.band_weights`."""
        return self._weights[self.inputs[0] if name is None else name]

    @cached_property
    def _weights(self) -> dict[str, Float64[np.ndarray, " band"]]:
        return {
            name: band_weights(np.asarray(images.array[:_TYPICAL]))
            for name, images in self._images.items()
        }


class _Rows:
    """Single rows of an array, out of chunks that are kept decoded."""

    def __init__(self, array: zarr.Array[Any]) -> None:
        self.array = array
        self.told: dict[str, Any] = dict(array.attrs)
        self._rows = array.chunks[0]
        chunk_bytes = self._rows * math.prod(array.shape[1:]) * array.dtype.itemsize
        self._chunk = lru_cache(max(1, _KEPT_BYTES // max(1, chunk_bytes)))(self._decoded)

    def __getitem__(self, row: int) -> np.ndarray:
        return np.asarray(self._chunk(row // self._rows)[row % self._rows])

    def _decoded(self, chunk: int) -> np.ndarray:
        rows = np.asarray(self.array[chunk * self._rows : (chunk + 1) * self._rows])
        rows.setflags(write=False)  # it is shared by all who look
        return rows


def _group_of(group: zarr.Group, name: str) -> zarr.Group:
    member = group.get(name)
    if not isinstance(member, zarr.Group):
        raise CorruptRunError(f"candidates.zarr/{name}: lost: lenspipe run makes it anew")
    return member


def without_lens_light(image: Image) -> Image:
    """The image less the smooth light of the galaxy in the middle; see `pages.lens_light`."""
    return replace(image, pixels=subtract_lens_light(image.pixels))


def picture(
    image: Image,
    weights: Float64[np.ndarray, " band"],
    stretch: str = "asinh",
    band: str | None = None,
    scale: int = 1,
) -> bytes:
    """A PNG, north and east as in the stamp; transparent where no pixel is known.

    band: grey picture of one; all of them in colour by default. scale: screen pixels of a pixel.
    InputError where stretch or band is none, or there are no pixels.
    """
    if stretch not in STRETCHES:
        raise InputError("stretch", f"one of {', '.join(STRETCHES)}", repr(stretch[:80]))
    if not 1 <= scale <= _LARGEST_SCALE:
        raise InputError("scale", f"1 to {_LARGEST_SCALE}", scale)
    known = np.isfinite(image.pixels).all(axis=0)
    if not known.any():
        raise InputError("rank", "a candidate whose pixels could be read", image.object_id)
    if band is not None and band not in image.bands:
        raise InputError("band", f"one of {', '.join(image.bands)}", repr(band[:80]))
    pixels = image.pixels if band is None else image.pixels[[image.bands.index(band)]]
    chosen = weights if band is None else np.ones(1)
    rgb = asinh_rgb(pixels, chosen) if stretch == "asinh" else _stretched(pixels, chosen, stretch)
    return _png(rgb, known, scale)


def overlay(image: Image, scale: int = 1) -> bytes:
    """A PNG of what spoke for a lens, transparent where nothing did; InputError where the run keeps
    no maps of it."""
    if not 1 <= scale <= _LARGEST_SCALE:
        raise InputError("scale", f"1 to {_LARGEST_SCALE}", scale)
    if image.explanation is None:
        raise InputError("explanation", "a run that keeps maps of it", "one without")
    spoke = np.nan_to_num(np.clip(image.explanation.astype(np.float64), 0.0, None))
    strength = spoke / (spoke.max() or 1.0)
    rgba = np.zeros((*spoke.shape, 4), np.uint8)
    rgba[..., 0], rgba[..., 1] = 255, 160
    rgba[..., 3] = (200 * strength + 0.5).astype(np.uint8)
    return _saved(np.flipud(rgba), scale)


def fits(image: Image) -> bytes:
    """The bands as image extensions of one FITS file, with a tangent-plane WCS at the candidate."""
    from astropy.io import fits as io_fits
    from astropy.wcs import WCS

    ny, nx = image.pixels.shape[1:]
    wcs = WCS(naxis=2)
    wcs.wcs.crpix = [(nx + 1) / 2, (ny + 1) / 2]
    wcs.wcs.crval = [image.ra_deg, image.dec_deg]
    wcs.wcs.cdelt = [-image.pixel_scale_arcsec / 3600.0, image.pixel_scale_arcsec / 3600.0]
    wcs.wcs.ctype = ["RA---TAN", "DEC--TAN"]
    primary = io_fits.PrimaryHDU()
    primary.header["OBJECT"] = image.object_id[:68]
    primary.header.add_comment("position is the catalogue's; orientation north up is assumed")
    extensions = []
    for band, pixels in zip(image.bands, image.pixels, strict=True):
        hdu = io_fits.ImageHDU(pixels, wcs.to_header(), name=band)
        hdu.header["FILTER"] = band
        if image.zero_point_mag is not None:
            hdu.header["ZEROPT"] = (image.zero_point_mag, "AB magnitude of one flux unit")
        extensions.append(hdu)
    sink = io.BytesIO()
    io_fits.HDUList([primary, *extensions]).writeto(sink, checksum=True)
    return sink.getvalue()


def _linear(values: Grey) -> Grey:
    return values


def _sqrt(values: Grey) -> Grey:
    return np.asarray(np.sqrt(values))


def _percentiles(flux: Float64[np.ndarray, "band y x"]) -> tuple[float, float]:
    low, high = np.percentile(flux.mean(axis=0), [_FAINT, _BRIGHT])
    return float(low), float(high)


def _zscale(flux: Float64[np.ndarray, "band y x"]) -> tuple[float, float]:
    from astropy.visualization import ZScaleInterval

    low, high = ZScaleInterval().get_limits(flux.mean(axis=0))
    return float(low), float(high)


@dataclass(frozen=True)
class _Stretch:
    limits: Callable[[Float64[np.ndarray, "band y x"]], tuple[float, float]]
    curve: Callable[[Grey], Grey]


_OTHERS = {
    "sqrt": _Stretch(_percentiles, _sqrt),
    "linear": _Stretch(_percentiles, _linear),
    "zscale": _Stretch(_zscale, _linear),
}
STRETCHES = ("asinh", *_OTHERS)


def _stretched(
    pixels: Float32[np.ndarray, "band y x"], weights: Float64[np.ndarray, " band"], name: str
) -> UInt8[np.ndarray, "y x 3"]:
    """All channels between the same two fluxes, those of the mean of the bands."""
    flux = np.nan_to_num(pixels.astype(np.float64) * weights[:, None, None])
    flux -= np.median(flux, axis=(1, 2), keepdims=True)
    stretch = _OTHERS[name]
    low, high = stretch.limits(flux)
    inner = flux[1:-1] if len(flux) > 2 else flux
    channels = np.stack([flux[-1], inner.mean(axis=0), flux[0]], axis=-1)
    unit = np.clip((channels - low) / ((high - low) or 1.0), 0.0, 1.0)
    return np.flipud((255 * stretch.curve(unit) + 0.5).astype(np.uint8))


def _png(rgb: UInt8[np.ndarray, "y x 3"], known: np.ndarray, scale: int) -> bytes:
    opaque = np.where(np.flipud(known), 255, 0).astype(np.uint8)
    return _saved(np.dstack([rgb, opaque]), scale)


def _saved(rgba: UInt8[np.ndarray, "y x 4"], scale: int) -> bytes:
    enlarged = rgba.repeat(scale, axis=0).repeat(scale, axis=1)
    sink = io.BytesIO()
    imsave(sink, np.ascontiguousarray(enlarged), format="png")
    return sink.getvalue()
