"""Where the tiles of a survey lie on the sky: headers are read as they are needed, and kept."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager

import numpy as np
from jaxtyping import Bool, Float64, Int64

from lenspipe.cutouts.faults import UnreadableError, raise_if_of_the_process
from lenspipe.cutouts.fitsfile import FitsFile, open_fits
from lenspipe.cutouts.geometry import SkyBuckets, interior_distance
from lenspipe.cutouts.paths import Tile
from lenspipe.cutouts.skywcs import Disc, SkyWcs, disc_of, sky_wcs

_HEADER_THREADS = 16

Opener = Callable[[str], AbstractContextManager[FitsFile]]


class Tiling:
    """The tiles and their grids. hdus: band -> index or EXTNAME, None: the first image."""

    def __init__(self, tiles: Sequence[Tile], hdus: Mapping[str, int | str | None]) -> None:
        self.tiles = tuple(tiles)
        self._hdus = dict(hdus)
        self._lock = threading.Lock()
        self._footprints: dict[int, SkyWcs | None] = {}
        self._discs: dict[int, Disc | None] = {}

    def wcs(self, path: str, band: str, opener: Opener = open_fits) -> SkyWcs:
        """The grid of one band's image in one file."""
        with opener(path) as file:
            return sky_wcs(file.image(self._hdus[band]).hdu)

    def footprint(self, number: int, opener: Opener = open_fits) -> SkyWcs | None:
        """The grid of a tile's first band that has one; None where no band can be read."""
        if number in self._footprints:
            return self._footprints[number]
        found = None
        for band, path in self.tiles[number].files.items():
            try:
                found = self.wcs(path, band, opener)
                break
            except (OSError, UnreadableError) as error:
                raise_if_of_the_process(error)
                continue
        with self._lock:
            return self._footprints.setdefault(number, found)

    def known(self) -> frozenset[int]:
        """Numbers of the tiles whose grids were made so far."""
        return frozenset(self._footprints)

    def unreadable(self) -> list[str]:
        """Names of the tiles whose headers were tried so far and cannot be read."""
        return [self.tiles[i].name for i, found in self._footprints.items() if found is None]

    def holds(
        self,
        number: int,
        ra_deg: Float64[np.ndarray, " k"],
        dec_deg: Float64[np.ndarray, " k"],
        opener: Opener = open_fits,
    ) -> Bool[np.ndarray, " k"]:
        """Which of these positions lie on a tile."""
        tile = self.footprint(number, opener)
        if tile is None:
            return np.zeros(len(ra_deg), bool)
        return np.asarray(interior_distance(*tile.pixels(ra_deg, dec_deg), tile.shape) >= 0)

    def most_interior(
        self,
        ra_deg: Float64[np.ndarray, " n"],
        dec_deg: Float64[np.ndarray, " n"],
        but: Sequence[Int64[np.ndarray, " n"]] = (),
    ) -> Int64[np.ndarray, " n"]:
        """Number of the tile where each position is farthest from the edges, -1 where it is on
        none. but: for each position, tiles that are not to be taken."""
        best = np.full(len(ra_deg), -1, np.int64)
        depth = np.full(len(ra_deg), 0.0)
        discs = self._all_discs()
        radii = [disc.radius_deg for disc in discs.values() if disc is not None]
        buckets = SkyBuckets(ra_deg, dec_deg, max(radii, default=1.0))
        for number, disc in discs.items():
            if disc is None:
                continue
            rows = buckets.near(*disc.centre_deg, disc.radius_deg)
            for used in but:
                rows = rows[used[rows] != number]
            tile = self.footprint(number) if len(rows) else None
            if tile is None:
                continue
            inside = interior_distance(*tile.pixels(ra_deg[rows], dec_deg[rows]), tile.shape)
            better = (inside > depth[rows]) | ((inside >= 0) & (best[rows] < 0))
            best[rows[better]], depth[rows[better]] = number, inside[better]
        return best

    def _all_discs(self) -> dict[int, Disc | None]:
        """A disc around every tile; headers that are still to be read are read in threads, since
        remote ones are waited for."""
        unknown = [i for i in range(len(self.tiles)) if i not in self._discs]
        if unknown:
            with ThreadPoolExecutor(_HEADER_THREADS) as pool:
                found = pool.map(self._disc, unknown)
                self._discs.update(zip(unknown, found, strict=True))
        return {i: self._discs[i] for i in range(len(self.tiles))}

    def _disc(self, number: int) -> Disc | None:
        """Where about a tile is, by the cards alone where they tell; None where no band can be
        read."""
        known = self._footprints.get(number)
        if known is None:
            for band, path in self.tiles[number].files.items():
                try:
                    with open_fits(path) as file:
                        disc = disc_of(file.image(self._hdus[band]).hdu)
                except (OSError, UnreadableError) as error:
                    raise_if_of_the_process(error)
                    continue
                if disc is not None:
                    return disc
                break
            known = self.footprint(number)
        return None if known is None else Disc(known.centre_deg, known.radius_deg)
