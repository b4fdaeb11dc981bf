"""An instrument: its bands on their pixel grids, with PSF, zero point, noise and pass bands."""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import yaml
from astropy.io import fits
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    PositiveFloat,
    PositiveInt,
    PrivateAttr,
    ValidationError,
    model_validator,
)

from lenspipe.errors import InputError
from lenspipe.problems import first_problem
from training.simulate.passband import Passband

if TYPE_CHECKING:
    from jaxtyping import Float32

_INSTRUMENTS = Path(__file__).parent / "instruments"
# What the only grid of an instrument is called: the input of a network on its pixels.
ONLY_GRID = "image"


class _Block(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Psf(_Block):
    """PSF of one band: a Moffat profile with mean and scatter of its FWHM and how elliptical it may
    be; or an image, for which the Moffat profile stands in where the file is absent.

    image: FITS file in the folder of real data; one pixel of it is one of the grid.
    """

    fwhm_arcsec: PositiveFloat
    scatter_arcsec: float = Field(ge=0.0)
    moffat_beta: float = Field(gt=1.0)
    max_ellipticity: float = Field(default=0.0, ge=0.0, lt=1.0)
    image: str | None = None


class Noise(_Block):
    """Noise of one band in flux units per pixel.

    exposure_s: all exposures together; exposure_s x gain: electrons of one flux unit, for the
    sources' own Poisson noise. The sky is either measured, sky_rms: standard deviation of a pixel,
    its median over images; or follows from sky_brightness_mag (AB per square arcsec), the number of
    exposures, read_noise_e and dark_e_s (electrons per pixel, and per second).
    scatter_dex: spread of log10 sky_rms; background_rms: spread of what sky subtraction leaves.
    """

    exposure_s: PositiveFloat
    gain: PositiveFloat
    sky_rms: PositiveFloat | None = None
    sky_brightness_mag: float | None = None
    exposures: PositiveInt = 1
    read_noise_e: float = Field(default=0.0, ge=0.0)
    dark_e_s: float = Field(default=0.0, ge=0.0)
    scatter_dex: float = Field(ge=0.0)
    background_rms: float = Field(default=0.0, ge=0.0)

    @model_validator(mode="after")
    def _one_sky(self) -> Noise:
        if (self.sky_rms is None) == (self.sky_brightness_mag is None):
            raise ValueError("expected one of sky_rms and sky_brightness_mag")
        if self.sky_rms is not None and (self.read_noise_e or self.dark_e_s):
            raise ValueError("expected no read_noise_e or dark_e_s beside a measured sky_rms")
        return self

    @property
    def electrons(self) -> float:
        """Electrons per flux unit."""
        return self.exposure_s * self.gain

    def white_rms(self, pixel_scale_arcsec: float, zero_point_mag: float) -> float:
        """Standard deviation of a pixel by the sky's photons, dark current and read-out."""
        if self.sky_brightness_mag is None:
            raise ValueError("expected a noise with sky_brightness_mag")
        flux = 10.0 ** (-0.4 * (self.sky_brightness_mag - zero_point_mag)) * pixel_scale_arcsec**2
        variance_e = flux * self.electrons + self.dark_e_s * self.exposure_s
        return float(np.sqrt(variance_e + self.exposures * self.read_noise_e**2)) / self.electrons


class Instrument(_Block):
    """The bands of a survey that share a pixel grid.

    filters: pass band of each band, from which colours follow; of an instrument with several grids,
    those of all its grids, since a scene has magnitudes in all of them. default_bands: what is
    simulated where nobody asks for bands; none: all.
    noise_correlation: autocorrelation of the sky noise at (row, column) offsets 0, 1, 2 ...;
    common_scatter_dex: spread of log10 sky_rms that the bands of one image share.
    saturation_flux: flux per pixel at which the detector is full. depth_mag: the survey's own 5
    sigma depth for point sources where it is known, to hold the noise against.
    """

    name: str
    bands: tuple[str, ...]
    default_bands: tuple[str, ...] | None = None
    pixel_scale_arcsec: PositiveFloat
    zero_point_mag: float
    psf: dict[str, Psf]
    noise: dict[str, Noise]
    filters: dict[str, Passband]
    common_scatter_dex: float = Field(default=0.0, ge=0.0)
    noise_correlation: tuple[tuple[float, ...], ...] = ((1.0,),)
    saturation_flux: PositiveFloat = float("inf")
    depth_mag: dict[str, float] = Field(default_factory=dict)
    _psf_pixels: dict[str, Float32[np.ndarray, "y x"]] = PrivateAttr(default_factory=dict)
    _psf_digest: str = PrivateAttr(default="")

    @model_validator(mode="after")
    def _complete(self) -> Instrument:
        for name in ("psf", "noise"):
            found = tuple(getattr(self, name))
            if set(found) != set(self.bands):
                raise ValueError(f"expected {name} of bands {self.bands}, found {found}")
        for name in ("bands", "depth_mag", "default_bands"):
            known = self.filters if name == "bands" else self.bands
            if not set(getattr(self, name) or ()) <= set(known):
                raise ValueError(f"expected {name} out of {tuple(known)}")
        if len({len(row) for row in self.noise_correlation}) != 1:
            raise ValueError("expected noise_correlation with rows of one length")
        if self.noise_correlation[0][0] != 1.0:
            raise ValueError("expected noise_correlation to be 1 at no offset")
        return self

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Instrument):
            return NotImplemented
        # Pydantic would compare the arrays of the PSF images for truth.
        return self._psf_digest == other._psf_digest and self.__dict__ == other.__dict__

    def __hash__(self) -> int:
        return hash((self.name, self.bands, self.pixel_scale_arcsec, self._psf_digest))

    @property
    def correlation_factor(self) -> float:
        """Noise of a sum over many pixels against that of uncorrelated ones: sqrt(sum of the
        noise's autocorrelation over all offsets)."""
        quadrant = np.array(self.noise_correlation)
        times = np.full(quadrant.shape, 4.0)
        times[0, :] = times[:, 0] = 2.0
        times[0, 0] = 1.0
        return float(np.sqrt((times * quadrant).sum()))

    def sky_rms(self, band: str) -> float:
        """Standard deviation of a pixel of the sky, flux.

        Resampling moves noise from pixels to their neighbours and keeps that of large areas: what
        follows from photons is divided by `correlation_factor`, what was measured is as it is.
        """
        noise = self.noise[band]
        if noise.sky_rms is not None:
            return noise.sky_rms
        return noise.white_rms(self.pixel_scale_arcsec, self.zero_point_mag) / (
            self.correlation_factor
        )

    def psf_pixels(self, band: str) -> Float32[np.ndarray, "y x"] | None:
        """The band's PSF image, sum 1, odd size; None where it is a Moffat profile."""
        return self._psf_pixels.get(band)

    def select(self, bands: tuple[str, ...]) -> Instrument:
        """The same with some of the bands, in the order of `bands`."""
        kept = {
            name: {band: values[band] for band in bands if band in values}
            for name, values in (("psf", self.psf), ("noise", self.noise))
        }
        depth = {band: m for band, m in self.depth_mag.items() if band in bands}
        changed = {**kept, "bands": bands, "depth_mag": depth, "default_bands": None}
        filters = {band: self.filters[band] for band in bands}
        return self.model_copy(update={**changed, "filters": filters})

    def with_psf_images(self, data: Path | None) -> Instrument:
        """The same with the PSF images that lie in the folder of real data.

        Warns of each that does not: its band is then simulated with the Moffat profile.
        """
        pixels = {}
        for band in self.bands:
            image = self.psf[band].image
            if image is not None and data is not None and (data / image).is_file():
                pixels[band] = read_psf(data / image)
            elif image is not None:
                where = "no folder of real data" if data is None else f"no file {data / image}"
                text = f"{self.name} {band}: {where}: a Moffat profile stands in for its PSF"
                warnings.warn(text, stacklevel=2)
        if not pixels:
            return self
        loaded = self.model_copy()
        loaded._psf_pixels = pixels
        loaded._psf_digest = _digest(pixels)
        return loaded


def _digest(images: Mapping[str, Float32[np.ndarray, "y x"]]) -> str:
    """SHA-256 of PSF images by band."""
    found = hashlib.sha256()
    for band, image in sorted(images.items()):
        found.update(f"{band} {image.shape} ".encode() + image.tobytes())
    return found.hexdigest()


def read_psf(path: Path) -> Float32[np.ndarray, "y x"]:
    """A PSF image as flux of a point source: sum 1, its peak in the middle of an odd square."""
    image = np.asarray(fits.getdata(path), dtype=np.float64)
    if image.ndim != 2 or not np.isfinite(image).all() or image.sum() <= 0:
        raise InputError(f"PSF {path}", "a finite image with light", f"shape {image.shape}")
    y, x = np.unravel_index(int(np.argmax(image)), image.shape)
    half = min(y, x, image.shape[0] - 1 - y, image.shape[1] - 1 - x)
    square = image[y - half : y + half + 1, x - half : x + half + 1]
    return np.asarray(square / square.sum(), dtype=np.float32)


def instrument_names() -> tuple[str, ...]:
    """The instruments that there are, one YAML file each."""
    return tuple(sorted(file.stem for file in _INSTRUMENTS.glob("*.yaml")))


def file_of(name: str) -> Path:
    """Where an instrument lies, if it is one."""
    return _INSTRUMENTS / f"{name}.yaml"


def psf_files(name: str) -> tuple[str, ...]:
    """PSF images that an instrument's bands would have, in the folder of real data; none of one
    that there is not."""
    if name not in instrument_names():
        return ()
    grids = parse_grids(yaml.safe_load(file_of(name).read_text(encoding="utf-8")), name)
    images = {psf.image for grid in grids.values() for psf in grid.psf.values()}
    return tuple(sorted(image for image in images if image is not None))


@lru_cache(maxsize=64)
def load_grids(name: str, bands: tuple[str, ...] | None = None) -> dict[str, Instrument]:
    """An instrument by the name of its file: grid name -> its bands on that grid.

    The first grid is the one that scenes are drawn on. bands: which to take, in this order; None:
    the file's default. A grid without any of them is left out. InputError names what is wrong.
    """
    path = file_of(name)
    if name not in instrument_names():
        raise InputError("instrument", f"one of {', '.join(instrument_names())}", repr(name))
    grids = parse_grids(yaml.safe_load(path.read_text(encoding="utf-8")), path.name)
    return select_bands(grids, bands)


def load_instrument(name: str, bands: tuple[str, ...] | None = None) -> Instrument:
    """The first grid of an instrument; see `load_grids`."""
    return next(iter(load_grids(name, bands).values()))


def select_bands(
    grids: Mapping[str, Instrument], bands: tuple[str, ...] | None
) -> dict[str, Instrument]:
    """Some of the bands, each on its grid; None: the default ones. InputError: no such band."""
    if bands is None:
        bands = tuple(
            band for grid in grids.values() for band in (grid.default_bands or grid.bands)
        )
    known = [band for grid in grids.values() for band in grid.bands]
    if not bands or len(set(bands)) != len(bands) or not set(bands) <= set(known):
        raise InputError("bands", f"some of {', '.join(known)}, each once", ", ".join(bands))
    filters = {band: passband for grid in grids.values() for band, passband in grid.filters.items()}
    every = {"filters": {band: filters[band] for band in bands}}
    kept = {
        name: tuple(band for band in bands if band in grid.bands) for name, grid in grids.items()
    }
    return {
        name: grids[name].select(own).model_copy(update=every) for name, own in kept.items() if own
    }


def parse_grids(content: dict[str, Any], source: str) -> dict[str, Instrument]:
    """The grids of an instrument from a mapping; see `load_grids`."""
    if "grids" not in content:
        return {ONLY_GRID: parse_instrument(content, source)}
    common = {key: value for key, value in content.items() if key != "grids"}
    return {
        name: parse_instrument({**common, **grid}, f"{source}: grids.{name}")
        for name, grid in content["grids"].items()
    }


def parse_instrument(content: dict[str, Any], source: str) -> Instrument:
    """An instrument with one grid from a mapping."""
    try:
        return Instrument.model_validate(content)
    except ValidationError as error:
        raise first_problem(error, source) from error
