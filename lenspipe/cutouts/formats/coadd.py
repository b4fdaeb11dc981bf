"""Cutouts from coadd tiles: FITS images with a celestial WCS, one file per band or one HDU each.

    cutouts:
      reader: coadd
      tiles: tiles/*.fits*                             # path or URL, a glob
      bands: {g: "{tile}_g.fits", r: "{tile}_r.fits"}  # or {g: {file: "{tile}.fits", hdu: G}}

A tile is what `{tile}` stands for in the names of the files that `tiles` matches: each band's
template is compared with the end of each path (as many folders as the template has), `*` stands
for any characters of one name, and a template fits the compressed form of a file (`.fits.fz`,
`.fits.gz`) too. Files that fit no template are left alone; two files for one band of one tile are
refused. A source is cut from the tile where it is farthest from the edges (in pixels of the
tile's first band; ties go to the first tile by name), and where that lacks a band or has too few
good pixels, from the next one that holds it. Bands of a tile may have grids of their own.

`mask.file` is a name such as `{tile}_{band}_mask.fits` beside the tile; `mask.hdu` an HDU of the
band's own file. Stamps follow the tile's pixel grid: nothing is shifted by parts of a pixel and
nothing rotated. The pixel that a source falls on is defined in `geometry`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import pyarrow as pa
from jaxtyping import Float64, Int64
from pydantic import Field

from lenspipe.config import is_url, resolve
from lenspipe.contracts import CutoutBatch, InputSpec, Reason
from lenspipe.cutouts.assemble import Collector, Plane, apply_rules, pack
from lenspipe.cutouts.base import BandInfo, Block, Reader, ReaderOptions, Text, WholeNumber
from lenspipe.cutouts.checks import check_inputs, native_scale, require_bands
from lenspipe.cutouts.chunks.sparse import LOCAL_REQUEST_BYTES, REMOTE_REQUEST_BYTES, plan_strips
from lenspipe.cutouts.columns import NeededColumn, carried_names
from lenspipe.cutouts.faults import UnreadableError, raise_if_of_the_process
from lenspipe.cutouts.files.list_files import listed
from lenspipe.cutouts.files.listing import Listing
from lenspipe.cutouts.files.paths import Tile, expand, tiles_of
from lenspipe.cutouts.fits.cutting import Broken, Place, cut
from lenspipe.cutouts.fits.fitsfile import FitsFile, Image, OpenFiles, card_number, open_fits
from lenspipe.cutouts.fits.skywcs import sky_wcs
from lenspipe.cutouts.fits.tiling import Opener, Tiling
from lenspipe.cutouts.geometry import group_rows, same_scale, stamp_origin
from lenspipe.cutouts.photometric import column_values, header_card, needed_columns
from lenspipe.cutouts.quality import mask_rejects
from lenspipe.errors import InputError
from lenspipe.storage.outage import folder_of

_HEADER_THREADS = 16


class BandImage(Block):
    """Where a band's image is. hdu: index or EXTNAME; none: the first two-dimensional image."""

    file: Text = "{tile}.fits"
    hdu: WholeNumber | Text | None = None


class Options(ReaderOptions):
    """See the module. checksums: whether a tile is held against its cards DATASUM and CHECKSUM:
    always, never, or (auto) where at least a quarter of it is read anyway."""

    tiles: Text
    bands: dict[Text, Text | BandImage] = Field(min_length=1)
    checksums: Literal["auto", "always", "never"] = "auto"

    def images(self) -> dict[str, BandImage]:
        """Every band's file and HDU, the short form written out."""
        return {
            band: BandImage(file=image) if isinstance(image, str) else image
            for band, image in self.bands.items()
        }


@dataclass(frozen=True)
class _Request:
    """One call of `read`. native: band -> pixel scale (arcsec); files: those open now; broken:
    numbers of the tiles whose headers could not be read in it."""

    inputs: Sequence[InputSpec]
    native: Mapping[str, float]
    files: OpenFiles
    broken: set[int] = field(default_factory=set)


@dataclass(frozen=True)
class _OnTile:
    """Sources that are cut from one tile. rows: where they stand in the table; position in deg."""

    tile: Tile
    rows: Int64[np.ndarray, " k"]
    ra: Float64[np.ndarray, " k"]
    dec: Float64[np.ndarray, " k"]


class CoaddReader:
    """See `Reader`. Tiles are listed once; a tile's header is read when it is first needed."""

    def __init__(self, options: Options, base: str) -> None:
        self._options, self._images = options, options.images()
        found = expand(options.tiles, base)
        self._tiles = tiles_of(found, {band: i.file for band, i in self._images.items()})
        self._listed = len(found)
        self._request_bytes = (
            REMOTE_REQUEST_BYTES if is_url(resolve(options.tiles, base)) else LOCAL_REQUEST_BYTES
        )
        self._tiling = Tiling(self._tiles, {band: i.hdu for band, i in self._images.items()})
        self._scales: dict[str, float] = {}

    @property
    def needs(self) -> tuple[NeededColumn, ...]:
        """Catalogue columns of the zero points."""
        return needed_columns(self._options.zero_point, tuple(self._images))

    @property
    def columns(self) -> frozenset[str]:
        """See `Reader`."""
        return carried_names(self.needs)

    def describe(self) -> Mapping[str, BandInfo]:
        """Band -> scale, files, bytes; see `Reader`."""
        if not self._tiles:
            raise InputError(
                "cutouts.tiles",
                "FITS files that fit a band's template",
                f"{self._listed} files, none that fits",
            )
        return {band: self._describe_band(band) for band in self._images}

    def _describe_band(self, band: str) -> BandInfo:
        paths = [tile.files[band] for tile in self._tiles if band in tile.files]
        if not paths:
            raise InputError(
                f"cutouts.bands.{band}",
                f"a file like {self._images[band].file}",
                f"none among {self._listed} files of {self._options.tiles}",
            )
        found = listed(paths)
        return BandInfo(self._band_scale(band), None, len(paths), found.bytes, found)

    def listing(self) -> Mapping[str, Listing]:
        """See `Reader`."""
        return {
            band: listed([tile.files[band] for tile in self._tiles if band in tile.files])
            for band in self._images
        }

    def check(self, inputs: Sequence[InputSpec]) -> None:
        """See `Reader`."""
        check_inputs(self._options, self.describe(), inputs)

    def problems(self) -> Sequence[str]:
        """Tiles that lack a band, and files whose header cannot be read or has another scale."""
        lacking = [
            f"tile {tile.name}: no band {band}"
            for tile in self._tiles
            for band in self._images
            if band not in tile.files
        ]
        images = [(path, band) for tile in self._tiles for band, path in tile.files.items()]
        with ThreadPoolExecutor(_HEADER_THREADS) as pool:
            found = pool.map(lambda image: self._header_problem(*image), images)
            return [*lacking, *filter(None, found)]

    def _header_problem(self, path: str, band: str) -> str | None:
        try:
            scale = self._tiling.wcs(path, band).pixel_scale_arcsec
        except (OSError, UnreadableError) as error:
            raise_if_of_the_process(error)
            return f"{path}: {error}"
        first = self._band_scale(band)
        if same_scale(scale, first):
            return None
        return f"{path}: {scale:.5g} arcsec per pixel, not {first:.5g} as other tiles of its band"

    def _band_scale(self, band: str, opener: Opener = open_fits) -> float:
        """Pixel scale of the first tile of a band that can be read."""
        if band in self._scales:
            return self._scales[band]
        problem = "no tile"
        for tile in self._tiles:
            if band not in tile.files:
                continue
            try:
                self._scales[band] = self._tiling.wcs(
                    tile.files[band], band, opener
                ).pixel_scale_arcsec
                return self._scales[band]
            except (OSError, UnreadableError) as error:
                raise_if_of_the_process(error, folder_of(tile.files[band]))
                problem = f"{tile.files[band]}: {error}"
        raise InputError(f"cutouts.bands.{band}", "a readable image", problem)

    def locality(self, sources: pa.Table) -> Int64[np.ndarray, " n"]:
        """Number of the tile where each source is most interior, -1 where it is on none."""
        return self._tiling.most_interior(*_positions(sources), set())

    def read(self, sources: pa.Table, inputs: Sequence[InputSpec]) -> CutoutBatch:
        """See `Reader`. A tile is opened once for all of its sources and bands."""
        require_bands(inputs, tuple(self._images))
        with OpenFiles() as files:
            native = {
                band: native_scale(self._options, band, self._scale_or(band, inputs, files))
                for spec in inputs
                for band in spec.bands
            }
            request = _Request(inputs, native, files)
            tiles = self._planned(sources)
            collector = self._gather(sources, tiles, request)
            self._try_next_tiles(collector, sources, tiles, request)
        return pack(collector)

    def _scale_or(self, band: str, inputs: Sequence[InputSpec], files: OpenFiles) -> float:
        """A band's scale; where no tile of it can be read every row fails, whatever it is."""
        try:
            return self._band_scale(band, files.use)
        except InputError:
            assumed = next(spec.pixel_scale_arcsec for spec in inputs if band in spec.bands)
            return self._options.pixel_scale_arcsec or assumed

    def _planned(self, sources: pa.Table) -> Int64[np.ndarray, " n"]:
        """The tile of each source, by column `locality` where the table has it: that spares this
        process the headers of all other tiles. Not believed before the tile's header is read."""
        if "locality" not in sources.column_names:
            return self.locality(sources)
        tiles = column_values(sources, "locality")
        known = np.isfinite(tiles) & (tiles >= 0) & (tiles < len(self._tiles))
        return np.where(known, tiles, -1).astype(np.int64)

    def _gather(
        self, sources: pa.Table, tiles: Int64[np.ndarray, " n"], request: _Request
    ) -> Collector:
        """All sources cut from their tiles, the rules applied. A source that its tile does not
        hold is cut from the most interior one, which is written into `tiles`."""
        collector = Collector(
            sources.num_rows, request.inputs, request.native, self._options.resample
        )
        ra, dec = _positions(sources)
        nowhere = np.flatnonzero(~(np.isfinite(ra) & (np.abs(dec) <= 90.0)))
        collector.fail(nowhere, Reason.BAD_METADATA, "position is missing or absurd")
        lost = self._cut_all(collector, tiles, ra, dec, request)
        if len(lost):
            tiles[lost] = self._tiling.most_interior(ra[lost], dec[lost], request.broken)
            moved = np.full(len(tiles), -1)
            moved[lost] = tiles[lost]
            self._cut_all(collector, moved, ra, dec, request)
            self._fail_lost(collector, lost[tiles[lost] < 0], request)
        apply_rules(collector, self._options, sources)
        return collector

    def _try_next_tiles(
        self,
        collector: Collector,
        sources: pa.Table,
        tiles: Int64[np.ndarray, " n"],
        request: _Request,
    ) -> None:
        """Cut what fails for what is in its pixels, or lacks a band, from the tile where it is
        next to most interior, and so on while there is one."""
        ra, dec = _positions(sources)
        tried = [tiles]
        while len(rows := collector.wanting()):
            used = [each[rows] for each in tried]
            following = self._tiling.most_interior(ra[rows], dec[rows], request.broken, used)
            rows, following = rows[following >= 0], following[following >= 0]
            if not len(rows):
                return
            again = self._gather(sources.take(pa.array(rows)), following, request)
            collector.adopt(rows, again)
            tried.append(np.full(len(tiles), -1))
            tried[-1][rows] = following

    def _cut_all(
        self,
        collector: Collector,
        tiles: Int64[np.ndarray, " n"],
        ra: Float64[np.ndarray, " n"],
        dec: Float64[np.ndarray, " n"],
        request: _Request,
    ) -> Int64[np.ndarray, " k"]:
        """Cut sources from their tiles (-1: none); gives the rows that their tile does not hold."""
        held = np.zeros(len(tiles), bool)
        for number, members in group_rows(tiles):
            inside = self._tiling.holds(
                number, ra[members], dec[members], request.broken, request.files.use
            )
            rows = members[inside]
            held[rows] = True
            if len(rows):
                on_tile = _OnTile(self._tiles[number], rows, ra[rows], dec[rows])
                for band in collector.bands():
                    self._collect_band(collector, on_tile, band, request)
            request.files.close()
        return np.flatnonzero(~held)

    def _fail_lost(
        self, collector: Collector, rows: Int64[np.ndarray, " k"], request: _Request
    ) -> None:
        """Rows on no tile that was read may be on one that cannot be read."""
        broken = [self._tiles[number].name for number in sorted(request.broken)]
        if broken:
            detail = f"on no readable tile; headers cannot be read of {', '.join(broken[:5])}"
            collector.fail(rows, Reason.UNREADABLE, detail)
        collector.fail(rows, Reason.NOT_FOUND, "on no tile")

    def _collect_band(
        self, collector: Collector, on_tile: _OnTile, band: str, request: _Request
    ) -> None:
        """Cut all stamps of one band of one tile, for every input that takes the band."""
        path, rows = on_tile.tile.files.get(band), on_tile.rows
        if path is None:
            return
        try:
            with (
                request.files.use(path) as file,
                self._open_mask(file, on_tile.tile, band, request.files) as mask,
            ):
                image = file.image(self._images[band].hdu)
                wcs = sky_wcs(image.hdu)
                native = request.native[band]
                if not same_scale(wcs.pixel_scale_arcsec, native):
                    detail = (
                        f"{path}: {wcs.pixel_scale_arcsec:.5g} arcsec per pixel, not {native:.5g}"
                    )
                    collector.fail(rows, Reason.BAD_METADATA, detail)
                    return
                x, y = wcs.pixels(on_tile.ra, on_tile.dec)
                if self._worth_summing(collector.planes_of(band), y, image):
                    file.check_sums(image.hdu)
                for plane in collector.planes_of(band):
                    self._cut_plane(collector, plane, image, mask, rows=rows, x=x, y=y)
                file.check_unchanged()
        except FileNotFoundError as error:
            raise_if_of_the_process(error, folder_of(path))
            collector.fail(rows, Reason.UNREADABLE, f"{path}: gone since it was listed")
        except (OSError, UnreadableError) as error:
            raise_if_of_the_process(error)
            collector.fail(rows, Reason.UNREADABLE, f"{path}: {error}")

    def _worth_summing(
        self, planes: Sequence[Plane], y: Float64[np.ndarray, " k"], image: Image
    ) -> bool:
        """Whether a tile's checksums are looked at when stamps around rows `y` are cut."""
        if self._options.checksums != "auto":
            return self._options.checksums == "always"
        side = max(plane.window.side for plane in planes)
        low = stamp_origin(y[np.isfinite(y)], side)
        strips = plan_strips(low, low + side, image.shape[0], image.row_bytes, 0.0)
        return sum(strip.stop - strip.start for strip in strips) * 4 >= image.shape[0]

    @contextmanager
    def _open_mask(
        self, file: FitsFile, tile: Tile, band: str, files: OpenFiles
    ) -> Iterator[Image | None]:
        """The mask image of a band, if the survey has masks."""
        mask = self._options.mask
        if mask.file is not None:
            name = mask.file.replace("{tile}", tile.stem).replace("{band}", band)
            with files.use(f"{tile.folder}/{name}") as other:
                yield other.image(mask.hdu)
        else:
            yield None if mask.hdu is None else file.image(mask.hdu)

    def _cut_plane(
        self,
        collector: Collector,
        plane: Plane,
        image: Image,
        mask: Image | None,
        *,
        rows: Int64[np.ndarray, " k"],
        x: Float64[np.ndarray, " k"],
        y: Float64[np.ndarray, " k"],
    ) -> None:
        card = header_card(self._options.zero_point)
        if card is not None:
            plane.cards[rows] = card_number(image.hdu, card)
        on_sky = np.isfinite(x) & np.isfinite(y)
        collector.fail(rows[~on_sky], Reason.NOT_FOUND, f"not on the grid of band {plane.band}")
        side = plane.window.side
        place = Place(rows[on_sky], stamp_origin(x[on_sky], side), stamp_origin(y[on_sky], side))
        total, broken = cut(image, place, plane.pixels, self._request_bytes, plane.look_at)
        collector.bytes_read += total
        edge = place.part(place.leaving(side, image.shape))
        if len(edge.rows):
            plane.need_outside()[edge.rows] = edge.outside(side, image.shape)
        if mask is not None:
            broken += self._cut_mask(collector, plane, image, mask, place)
        for part in broken:
            collector.fail(part.rows, Reason.UNREADABLE, f"band {plane.band}: {part.error}")
        plane.present[place.rows] = True

    def _cut_mask(
        self, collector: Collector, plane: Plane, image: Image, mask: Image, place: Place
    ) -> tuple[Broken, ...]:
        if mask.shape != image.shape:
            raise UnreadableError(f"mask of {mask.shape} pixels for an image of {image.shape}")
        side = plane.window.side
        stamps = np.zeros((len(place.rows), side, side), np.int64)
        into = Place(np.arange(len(place.rows)), place.x0, place.y0)
        total, broken = cut(mask, into, stamps, self._request_bytes)
        collector.bytes_read += total
        plane.need_masked()[place.rows] = mask_rejects(stamps, self._options.mask.bits)
        return tuple(Broken(place.rows[part.rows], f"mask: {part.error}") for part in broken)


def _positions(
    sources: pa.Table,
) -> tuple[Float64[np.ndarray, " n"], Float64[np.ndarray, " n"]]:
    return column_values(sources, "ra"), column_values(sources, "dec")


def open_reader(options: ReaderOptions, base: str) -> Reader:
    """The reader of this module."""
    if not isinstance(options, Options):
        raise TypeError(f"expected {Options.__qualname__}, found {type(options).__qualname__}")
    return CoaddReader(options, base)
