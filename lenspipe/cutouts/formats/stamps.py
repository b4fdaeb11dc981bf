"""Cutouts that are files already: one FITS image per object and band.

    cutouts:                                  # Pan-STARRS1 stamps
      reader: stamps
      path: raw_fits/{folder}_{band}.fits     # fields: columns of the catalogue, and band
      bands: {g: g, r: r, i: i}               # band -> text that stands for {band}
      zero_point: {exptime_header: EXPTIME}
      crop: true

    cutouts:                                  # Bologna Lens Factory challenge, ground
      reader: stamps
      path: "{band}-{object_id}.fits"
      bands: {r: Band1/imageSDSS_R, i: Band2/imageSDSS_I, g: Band3/imageSDSS_G}
      position: {ra: RA, dec: DEC, unit: rad}
      mask: {values: [100]}

The source is taken to lie on the pixel that `geometry` defines; a larger stamp is cut down around
it, where the survey file allows it. Files are read whole, since a stamp is smaller than what a
disk reads at once.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pyarrow as pa
from jaxtyping import Float64, Int64
from pydantic import Field

from lenspipe.contracts import CutoutBatch, Flag, InputSpec, Reason
from lenspipe.cutouts.assemble import Collector, finish
from lenspipe.cutouts.base import BandInfo, Block, Reader, ReaderOptions, Switch, WholeNumber
from lenspipe.cutouts.checks import check_inputs, native_scale, require_bands
from lenspipe.cutouts.columns import NeededColumn, carried_names
from lenspipe.cutouts.faults import READ_ERRORS, UnreadableError, raise_if_of_the_process
from lenspipe.cutouts.files.list_files import listed
from lenspipe.cutouts.files.listing import Listing
from lenspipe.cutouts.files.paths import NameTemplate, UnsafeNameError, find
from lenspipe.cutouts.fits.fitsfile import FitsFile, Image, card_number, open_fits
from lenspipe.cutouts.fits.skywcs import centre_position, pixel_scale
from lenspipe.cutouts.geometry import crop_origin, same_scale
from lenspipe.cutouts.photometric import header_card, needed_columns
from lenspipe.cutouts.quality import mask_rejects
from lenspipe.errors import InputError
from lenspipe.storage.names import require_sound

_LOCALITIES = 4096


class Position(Block):
    """Header cards with the object's position and their unit; used where no catalogue gives one."""

    ra: str = "RA"
    dec: str = "DEC"
    unit: Literal["deg", "rad"] = "deg"


class Options(ReaderOptions):
    """See the module. hdu: index or EXTNAME of the image, none: the first one. position: none
    means that the WCS at the image's centre gives it."""

    path: str
    bands: dict[str, str] = Field(min_length=1)
    hdu: WholeNumber | str | None = None
    position: Position | None = None
    checksums: Switch = True


@dataclass(frozen=True)
class _Sample:
    """What one file of a band says of all of them."""

    scale: float | None
    shape: tuple[int, int]


class StampReader:
    """See `Reader`."""

    def __init__(self, options: Options, base: str) -> None:
        self._options = options
        self._template = NameTemplate(options.path, "cutouts.path", base)
        if "band" not in self._template.fields and len(options.bands) > 1:
            raise InputError("cutouts.path", "a template with {band} in it", options.path)
        mask = options.mask.file
        self._mask = NameTemplate(mask, "cutouts.mask.file", base) if mask else None
        self._scales: dict[str, float] = {}

    @property
    def needs(self) -> tuple[NeededColumn, ...]:
        """Catalogue columns that names and zero points are made of."""
        zero = needed_columns(self._options.zero_point, tuple(self._options.bands))
        return (*self._in_names(), *zero)

    def _in_names(self) -> tuple[NeededColumn, ...]:
        templates = (self._template, *([self._mask] if self._mask else []))
        return tuple(
            NeededColumn(template.key, name, template.kind(name))
            for template in templates
            for name in sorted(template.fields - {"band"})
        )

    @property
    def columns(self) -> frozenset[str]:
        """See `Reader`."""
        return carried_names(self.needs)

    def files(self, band: str) -> tuple[str, ...]:
        """Every file of a band."""
        return find(self._template.glob({"band": self._options.bands[band]}))

    def describe(self) -> Mapping[str, BandInfo]:
        """Band -> scale and size of its first readable stamp, files, bytes; see `Reader`."""
        infos = {}
        for band in self._options.bands:
            paths = self.files(band)
            sample = self._sample(band, paths)
            found = listed(paths)
            infos[band] = BandInfo(sample.scale, sample.shape, len(paths), found.bytes, found)
        return infos

    def listing(self) -> Mapping[str, Listing]:
        """See `Reader`."""
        return {band: listed(self.files(band)) for band in self._options.bands}

    def check(self, inputs: Sequence[InputSpec]) -> None:
        """See `Reader`. The first readable stamp of each band speaks for all."""
        samples = {band: self._sample(band, self.files(band)) for band in self._options.bands}
        infos = {band: BandInfo(found.scale, found.shape, 0, 0) for band, found in samples.items()}
        check_inputs(self._options, infos, inputs)

    def _sample(self, band: str, paths: Sequence[str]) -> _Sample:
        problem = f"no file like {self._template.template}"
        for path in paths:
            try:
                with open_fits(path, whole=True) as file:
                    image = file.image(self._options.hdu)
                    return _Sample(scale_or_none(image), image.shape)
            except (OSError, UnreadableError) as error:
                raise_if_of_the_process(error)
                problem = f"{path}: {error}"
        raise InputError(f"cutouts.bands.{band}", "a readable stamp", problem)

    def locality(self, sources: pa.Table) -> Int64[np.ndarray, " n"]:
        """A number from the object's file name: stamps have no neighbours to be read with."""
        columns = self._values(sources)
        return np.array(
            [_bucket(self._name_or_none(columns, row)) for row in range(sources.num_rows)],
            np.int64,
        )

    def _name_or_none(self, columns: Mapping[str, list[Any]], row: int) -> str | None:
        band = next(iter(self._options.bands.values()))
        values = {name: column[row] for name, column in columns.items()}
        try:
            return _fill(self._template, {**values, "band": band})
        except UnsafeNameError:
            return None

    def _values(self, sources: pa.Table) -> dict[str, list[Any]]:
        """The columns that names are made of, as Python values."""
        for column in self._in_names():
            column.require(sources.schema)
        return {column.name: sources[column.name].to_pylist() for column in self._in_names()}

    def read(self, sources: pa.Table, inputs: Sequence[InputSpec]) -> CutoutBatch:
        """See `Reader`."""
        return self._read(sources, inputs, None)

    def read_located(
        self, sources: pa.Table, inputs: Sequence[InputSpec]
    ) -> tuple[CutoutBatch, Float64[np.ndarray, "n 2"]]:
        """See `Locator`: the position is that of the first band that can be read."""
        positions = np.full((sources.num_rows, 2), np.nan)
        return self._read(sources, inputs, positions), positions

    def _read(
        self,
        sources: pa.Table,
        inputs: Sequence[InputSpec],
        positions: Float64[np.ndarray, "n 2"] | None,
    ) -> CutoutBatch:
        require_bands(inputs, tuple(self._options.bands))
        columns = self._values(sources)
        native = {band: self._native_scale(band, inputs) for spec in inputs for band in spec.bands}
        collector = Collector(sources.num_rows, inputs, native, self._options.resample)
        bands = collector.bands()
        for row in range(sources.num_rows):
            values = {name: column[row] for name, column in columns.items()}
            for band in bands:
                if row not in collector.failures:
                    self._collect(collector, row, band, native[band], values, positions)
        return finish(collector, self._options, sources)

    def _native_scale(self, band: str, inputs: Sequence[InputSpec]) -> float:
        """Scale that every stamp of a band must have. Where nothing is resampled and the inputs
        agree that is the inputs'; else the first file's, or any where no file can be read and
        every row fails."""
        wanted = [spec.pixel_scale_arcsec for spec in inputs if band in spec.bands]
        agree = all(same_scale(scale, wanted[0]) for scale in wanted)
        if agree and not self._options.resample:
            return wanted[0]
        if band not in self._scales:
            try:
                found = self._sample(band, self.files(band)).scale
            except InputError:
                return wanted[0]
            self._scales[band] = native_scale(self._options, band, found)
        return self._scales[band]

    def _collect(
        self,
        collector: Collector,
        row: int,
        band: str,
        native: float,
        values: Mapping[str, Any],
        positions: Float64[np.ndarray, "n 2"] | None,
    ) -> None:
        """One band of one object; its position where it is asked for and not known yet."""
        named = {**values, "band": self._options.bands[band]}
        try:
            path = _fill(self._template, named)
            with open_fits(path, whole=True) as file:
                image = file.image(self._options.hdu)
                if self._options.checksums:
                    file.check_sums(image.hdu)
                if positions is not None and np.isnan(positions[row, 0]):
                    positions[row] = _position(image, self._options)
                self._take(collector, row, band, native, image)
                self._take_mask(collector, row, band, file, named)
                collector.bytes_read += file.size
        except FileNotFoundError as error:
            raise_if_of_the_process(error, self._template.folder)
            return
        except UnsafeNameError as error:
            collector.fail([row], Reason.BAD_METADATA, str(error))
        except _WrongStampError as error:
            collector.fail([row], Reason.BAD_METADATA, f"{path}: {error}")
        except UnreadableError as error:
            collector.fail([row], Reason.UNREADABLE, f"{path}: {error}")

    def _take(self, collector: Collector, row: int, band: str, native: float, image: Image) -> None:
        scale = scale_or_none(image) or self._options.pixel_scale_arcsec
        if scale is None or not same_scale(scale, native):
            raise _WrongStampError(f"{scale} arcsec per pixel, {native:.5g} expected")
        card = header_card(self._options.zero_point)
        for plane in collector.planes_of(band):
            side = plane.window.side
            y, x = _square(image.shape, side, self._options.crop)
            plane.pixels[row] = image.rows(y.start, y.stop)[:, x]
            plane.present[row] = True
            if card is not None:
                plane.cards[row] = card_number(image.hdu, card)
            if max(image.shape) > side:
                collector.flags[row] |= np.uint32(Flag.CROPPED)

    def _take_mask(
        self,
        collector: Collector,
        row: int,
        band: str,
        file: FitsFile,
        named: Mapping[str, Any],
    ) -> None:
        options = self._options.mask
        if self._mask is not None:
            path = _fill(self._mask, named)
            try:
                with open_fits(path, whole=True) as other:
                    self._apply_mask(collector, row, band, other.image(options.hdu))
            except FileNotFoundError as error:
                raise_if_of_the_process(error, self._mask.folder)
                raise UnreadableError(f"mask {path}: no such file") from None
        elif options.hdu is not None:
            self._apply_mask(collector, row, band, file.image(options.hdu))

    def _apply_mask(self, collector: Collector, row: int, band: str, mask: Image) -> None:
        for plane in collector.planes_of(band):
            y, x = _square(mask.shape, plane.window.side, self._options.crop)
            rejected = mask_rejects(mask.rows(y.start, y.stop)[:, x], self._options.mask.bits)
            if rejected.any():
                plane.need_masked()[row] = rejected


class _WrongStampError(Exception):
    """A stamp that can be read, of a size or pixel scale that does not serve."""


def _square(shape: tuple[int, int], side: int, crop: bool) -> tuple[slice, slice]:
    """Rows and columns to keep of a stamp of `shape`. _WrongStampError where it does not fit."""
    top, left = crop_origin(shape[0], side), crop_origin(shape[1], side)
    fits_in = top >= 0 and left >= 0 and top + side <= shape[0] and left + side <= shape[1]
    if not fits_in or (max(shape) > side and not crop):
        raise _WrongStampError(f"{shape[0]} x {shape[1]} pixels, {side} expected")
    return slice(top, top + side), slice(left, left + side)


def _fill(template: NameTemplate, values: Mapping[str, Any]) -> str:
    """A file name. UnsafeNameError where a value is missing, unsafe or of the wrong type."""
    for name in template.fields:
        if values[name] is None:
            raise UnsafeNameError(f"column {name}: null")
    try:
        return template.fill(values)
    except (ValueError, TypeError) as error:
        raise UnsafeNameError(str(error)) from error


def scale_or_none(image: Image) -> float | None:
    """Pixel scale (arcsec) of a stamp; None where its header has none."""
    if any(key in image.hdu.cards for key in ("CD1_1", "CDELT1")):
        return pixel_scale(image.hdu)
    return None


def _bucket(name: str | None) -> int:
    return -1 if name is None else zlib.crc32(name.encode("utf-8", "replace")) % _LOCALITIES


def list_stamps(options: Options, base: str, positions: bool = True) -> pa.Table:
    """The objects of which a folder holds stamps: object_id, ra, dec, and the template's fields.

    object_id: the field of that name, else all fields joined by `_`, as text. Positions (deg) come
    from the headers of the first band that has the object, NaN where they cannot be read, or where
    they are not asked for: then no file is opened.
    """
    template = NameTemplate(options.path, "cutouts.path", base)
    found: dict[tuple[str, ...], str] = {}
    fields = sorted(template.fields - {"band"})
    for text in options.bands.values():
        pattern = template.pattern({"band": text})
        for path in find(template.glob({"band": text})):
            match = pattern.fullmatch(path)
            if match is not None:
                require_sound(path, "cutouts.path")
                found.setdefault(tuple(match[name] for name in fields), path)
    if not found:
        raise InputError("cutouts.path", "files that fit the template", template.template)
    keys = sorted(found)
    places = np.full((len(keys), 2), np.nan)
    if positions:
        places[:] = [_position_in(found[key], options) for key in keys]
    columns = {name: [key[i] for key in keys] for i, name in enumerate(fields)}
    columns.setdefault("object_id", ["_".join(key) for key in keys])
    arrays = {name: _typed(template, name, values) for name, values in columns.items()}
    return pa.table({**arrays, "ra": places[:, 0], "dec": places[:, 1]})


def _typed(template: NameTemplate, name: str, values: list[str]) -> pa.Array:
    """Text, or whole numbers where the template formats the field as one."""
    return pa.array([int(v) for v in values] if template.is_integer(name) else values)


def _position_in(path: str, options: Options) -> tuple[float, float]:
    """(ra, dec) in degrees of one file."""
    try:
        with open_fits(path, whole=True) as file:
            return _position(file.image(options.hdu), options)
    except (OSError, UnreadableError) as error:
        raise_if_of_the_process(error)
        return math.nan, math.nan


def _position(image: Image, options: Options) -> tuple[float, float]:
    """(ra, dec) in degrees of one stamp, NaN where its header does not say it."""
    if options.position is None:
        try:
            return centre_position(image.hdu)
        except READ_ERRORS:
            return math.nan, math.nan
    cards = (options.position.ra, options.position.dec)
    ra, dec = (card_number(image.hdu, key) for key in cards)
    if options.position.unit == "rad":
        ra, dec = math.degrees(ra), math.degrees(dec)
    return ra % 360.0, dec


def open_reader(options: ReaderOptions, base: str) -> Reader:
    """The reader of this module."""
    if not isinstance(options, Options):
        raise TypeError(f"expected {Options.__qualname__}, found {type(options).__qualname__}")
    return StampReader(options, base)
