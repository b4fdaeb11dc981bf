"""Where the tiles of a survey lie on the sky: headers are read as they are needed, and kept.

A header that cannot be read is not kept: the next read tries it again. `broken` collects the
numbers of the tiles that could not be read in one read; those are not tried twice in it.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from functools import partial

import numpy as np
from jaxtyping import Bool, Float64, Int64

from lenspipe.cutouts.faults import UnreadableError, raise_if_of_the_process
from lenspipe.cutouts.files.paths import Tile
from lenspipe.cutouts.fits.fitsfile import FitsFile, open_fits
from lenspipe.cutouts.fits.skywcs import Disc, SkyWcs, disc_of, sky_wcs
from lenspipe.cutouts.geometry import SkyBuckets, interior_distance
from lenspipe.storage.outage import folder_of

_HEADER_THREADS = 16

Opener = Callable[[str], AbstractContextManager[FitsFile]]


class Tiling:
    """The tiles and their grids. hdus: band -> index or EXTNAME, None: the first image."""

    def __init__(self, tiles: Sequence[Tile], hdus: Mapping[str, int | str | None]) -> None:
        self.tiles = tuple(tiles)
        self._hdus = dict(hdus)
        self._lock = threading.Lock()
        self._footprints: dict[int, SkyWcs] = {}
        self._discs: dict[int, Disc] = {}

    def wcs(self, path: str, band: str, opener: Opener = open_fits) -> SkyWcs:
        """The grid of one band's image in one file."""
        with opener(path) as file:
            return sky_wcs(file.image(self._hdus[band]).hdu)

    def footprint(self, number: int, broken: set[int], opener: Opener = open_fits) -> SkyWcs | None:
        """The grid of a tile's first band that has one; None where no band can be read."""
        if number in self._footprints:
            return self._footprints[number]
        if number in broken:
            return None
        for band, path in self.tiles[number].files.items():
            try:
                found = self.wcs(path, band, opener)
            except (OSError, UnreadableError) as error:
                raise_if_of_the_process(error, folder_of(path))
                continue
            with self._lock:
                return self._footprints.setdefault(number, found)
        broken.add(number)
        return None

    def holds(
        self,
        number: int,
        ra_deg: Float64[np.ndarray, " k"],
        dec_deg: Float64[np.ndarray, " k"],
        broken: set[int],
        opener: Opener = open_fits,
    ) -> Bool[np.ndarray, " k"]:
        """Which of these positions lie on a tile."""
        tile = self.footprint(number, broken, opener)
        if tile is None:
            return np.zeros(len(ra_deg), bool)
        return np.asarray(interior_distance(*tile.pixels(ra_deg, dec_deg), tile.shape) >= 0)

    def most_interior(
        self,
        ra_deg: Float64[np.ndarray, " n"],
        dec_deg: Float64[np.ndarray, " n"],
        broken: set[int],
        but: Sequence[Int64[np.ndarray, " n"]] = (),
    ) -> Int64[np.ndarray, " n"]:
        """Number of the tile where each position is farthest from the edges, -1 where it is on
        none. but: for each position, tiles that are not to be taken."""
        best = np.full(len(ra_deg), -1, np.int64)
        depth = np.full(len(ra_deg), 0.0)
        discs = self._all_discs(broken)
        radii = [disc.radius_deg for disc in discs.values()]
        buckets = SkyBuckets(ra_deg, dec_deg, max(radii, default=1.0))
        for number, disc in discs.items():
            rows = buckets.near(*disc.centre_deg, disc.radius_deg)
            for used in but:
                rows = rows[used[rows] != number]
            tile = self.footprint(number, broken) if len(rows) else None
            if tile is None:
                continue
            inside = interior_distance(*tile.pixels(ra_deg[rows], dec_deg[rows]), tile.shape)
            better = (inside > depth[rows]) | ((inside >= 0) & (best[rows] < 0))
            best[rows[better]], depth[rows[better]] = number, inside[better]
        return best

    def _all_discs(self, broken: set[int]) -> dict[int, Disc]:
        """A disc around every tile that can be read, in their order; headers that are still to be
        read are read in threads, since remote ones are waited for."""
        unknown = [i for i in range(len(self.tiles)) if i not in self._discs and i not in broken]
        if unknown:
            with ThreadPoolExecutor(_HEADER_THREADS) as pool:
                found = zip(unknown, pool.map(partial(self._disc, broken), unknown), strict=True)
                self._discs.update({i: disc for i, disc in found if disc is not None})
        return {i: self._discs[i] for i in range(len(self.tiles)) if i in self._discs}

    def _disc(self, broken: set[int], number: int) -> Disc | None:
        """Where about a tile is, by the cards alone where they tell; None where no band can be
        read."""
        known = self._footprints.get(number)
        if known is None:
            for band, path in self.tiles[number].files.items():
                try:
                    with open_fits(path) as file:
                        disc = disc_of(file.image(self._hdus[band]).hdu)
                except (OSError, UnreadableError) as error:
                    raise_if_of_the_process(error, folder_of(path))
                    continue
                if disc is not None:
                    return disc
                break
            known = self.footprint(number, broken)
        return None if known is None else Disc(known.centre_deg, known.radius_deg)
