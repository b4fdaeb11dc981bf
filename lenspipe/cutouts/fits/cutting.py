"""Stamps out of an open image: the strips to read, the copies, the pixels beyond the edges."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Int64

from lenspipe.cutouts.chunks.sparse import plan_strips
from lenspipe.cutouts.faults import READ_ERRORS, raise_if_of_the_process
from lenspipe.cutouts.fits.fitsfile import Image
from lenspipe.cutouts.geometry import cut_stamps


@dataclass(frozen=True)
class Place:
    """Stamps of one side in one image. rows: where they go in the output; x0, y0: their first
    pixels in the image."""

    rows: Int64[np.ndarray, " k"]
    x0: Int64[np.ndarray, " k"]
    y0: Int64[np.ndarray, " k"]

    def part(self, which: Any) -> Place:
        """Some of the stamps."""
        return Place(self.rows[which], self.x0[which], self.y0[which])

    def leaving(self, side: int, shape: tuple[int, int]) -> Bool[np.ndarray, " k"]:
        """Stamps that lie partly or wholly outside an image of `shape`."""
        height, width = shape
        past = (self.x0 + side > width) | (self.y0 + side > height)
        return past | (self.x0 < 0) | (self.y0 < 0)

    def outside(self, side: int, shape: tuple[int, int]) -> Bool[np.ndarray, "k y x"]:
        """The pixels of each stamp that lie outside an image of `shape`."""
        steps = np.arange(side)
        x, y = self.x0[:, None] + steps, self.y0[:, None] + steps
        off_x, off_y = (x < 0) | (x >= shape[1]), (y < 0) | (y >= shape[0])
        return np.asarray(off_y[:, :, None] | off_x[:, None, :])


@dataclass(frozen=True)
class Broken:
    """Rows whose strip could not be read, and why."""

    rows: Int64[np.ndarray, " k"]
    error: str


def cut(
    image: Image,
    place: Place,
    out: np.ndarray[Any, Any],
    request_bytes: float,
    filled: Callable[[Int64[np.ndarray, " k"]], None] = lambda _: None,
) -> tuple[int, tuple[Broken, ...]]:
    """Copy stamps into `out[place.rows]`, and give bytes read and what failed.

    filled: is told the rows of each strip as soon as they are copied.

    Pixels outside the image become 0. The image is read by planned strips of rows, of which each
    can fail for itself.
    """
    side, (height, _) = out.shape[1], image.shape
    out[place.rows[place.leaving(side, image.shape)]] = 0
    touching = (place.y0 < height) & (place.y0 + side > 0)
    place = place.part(touching)
    strips = plan_strips(
        place.y0, place.y0 + side, height, image.row_bytes, request_bytes, image.strip_bytes
    )
    first = np.array([strip.start for strip in strips], np.int64)
    member = np.searchsorted(first, np.clip(place.y0, 0, height), side="right") - 1
    total, broken = 0, []
    for number, strip in enumerate(strips):
        mine = place.part(member == number)
        try:
            pixels = image.rows(strip.start, strip.stop)
        except READ_ERRORS as error:
            raise_if_of_the_process(error)
            broken.append(Broken(mine.rows, str(error)))
            continue
        with np.errstate(over="ignore", invalid="ignore"):
            cut_stamps(pixels, mine.x0, mine.y0 - strip.start, out, mine.rows)
        filled(mine.rows)
        total += (strip.stop - strip.start) * image.row_bytes
    return total, tuple(broken)
