"""From the pixels that a reader gathered to a CutoutBatch: the part all readers share.

A reader makes a `Collector`, fills its planes (one per input and band) for the rows it finds,
reports the rows it cannot read, and calls `finish`. What is never filled is a missing band; a row
with no band at all is NOT_FOUND.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from jaxtyping import Float32, Float64, Int64

from lenspipe.contracts import CutoutBatch, Failure, Flag, InputSpec, Reason
from lenspipe.cutouts.base import ReaderOptions
from lenspipe.cutouts.checks import check_scale
from lenspipe.cutouts.geometry import Window, as_slice, resample, window
from lenspipe.cutouts.photometric import factors, zero_points
from lenspipe.cutouts.quality import look, repair

Plane3D = np.ndarray[Any, np.dtype[np.float32]]

# At a zero point of 25 mag this is a star of magnitude 2.5 in one pixel, at 31.4 mag (nJy) one of
# 8.9, and no stack of exposures counts as many electrons: sentinels such as 1e30 lie beyond, and
# sums of squares of a stamp stay within float32.
LARGEST_FLUX = 1e9
_LOOKED_AT = 64  # rows looked at in one go, few enough to stay in the cache from one look to two
_OF_PIXELS = (Reason.MISSING_BAND, Reason.BAD_PIXELS, Reason.CONSTANT_IMAGE)


class Plane:
    """One band of one input for every row asked for.

    pixels: (n, side, side), only defined where `present`. outside and masked: the same shape,
    made on first use. cards: value of the FITS card that the zero point comes from.
    """

    def __init__(self, band: str, win: Window, pixels: Plane3D) -> None:
        n = len(pixels)
        self.band, self.window, self.pixels = band, win, pixels
        self.present = np.zeros(n, bool)
        self.cards = np.full(n, np.nan)
        self.seen = np.zeros(n, bool)  # rows that `look_at` looked at
        self.bad = np.zeros(n, bool)  # rows with a pixel that is not finite
        self.equal = np.zeros(n, bool)  # rows with finite, equal pixels
        self.largest = np.zeros(n, np.float32)  # largest |pixel| of each row
        self.outside: np.ndarray[Any, np.dtype[np.bool_]] | None = None
        self.masked: np.ndarray[Any, np.dtype[np.bool_]] | None = None

    @property
    def suspects(self) -> Int64[np.ndarray, " k"]:
        """Rows with a pixel that is not finite."""
        return np.flatnonzero(self.bad & self.seen)

    @property
    def constant(self) -> Int64[np.ndarray, " k"]:
        """Rows with equal pixels."""
        return np.flatnonzero(self.equal & self.seen)

    def look_at(self, rows: Int64[np.ndarray, " k"]) -> None:
        """Note what the quality rules need of rows that are filled. A reader that calls this as
        soon as it has filled them spares a pass over memory: they are still in the cache."""
        for start in range(0, len(rows), _LOOKED_AT):
            some = as_slice(rows[start : start + _LOOKED_AT])
            glance = look(self.pixels[some])
            self.seen[some] = True
            self.bad[some], self.equal[some] = glance.bad, glance.constant
            self.largest[some] = glance.largest

    def need_outside(self) -> np.ndarray[Any, np.dtype[np.bool_]]:
        """Pixels that lie outside the image."""
        if self.outside is None:
            self.outside = np.zeros(self.pixels.shape, bool)
        return self.outside

    def need_masked(self) -> np.ndarray[Any, np.dtype[np.bool_]]:
        """Pixels that a mask rejects."""
        if self.masked is None:
            self.masked = np.zeros(self.pixels.shape, bool)
        return self.masked


class Collector:
    """The pixels and the failures of one call of `read`, while they are gathered."""

    def __init__(
        self,
        requested: int,
        inputs: Sequence[InputSpec],
        native_arcsec: Mapping[str, float],
        may_resample: bool,
    ) -> None:
        for spec in inputs:
            for band in spec.bands:
                check_scale(may_resample, spec, band, native_arcsec[band])
        self.requested = requested
        self.inputs = tuple(inputs)
        self.bytes_read = 0
        self.flags = np.zeros(requested, np.uint32)
        self.failures: dict[int, Failure] = {}
        self.images = {spec.name: np.empty((requested, *spec.shape), np.float32) for spec in inputs}
        self.planes = {spec.name: self._planes(spec, native_arcsec) for spec in inputs}

    def _planes(self, spec: InputSpec, native_arcsec: Mapping[str, float]) -> tuple[Plane, ...]:
        """Planes that are views of the final array wherever nothing is interpolated."""
        planes = []
        for index, band in enumerate(spec.bands):
            win = window(spec.size_pixels, spec.pixel_scale_arcsec, native_arcsec[band])
            pixels = self.images[spec.name][:, index]
            if win.resampled:
                pixels = np.empty((self.requested, win.side, win.side), np.float32)
            planes.append(Plane(band, win, pixels))
        return tuple(planes)

    def planes_of(self, band: str) -> tuple[Plane, ...]:
        """The planes, of any input, that take a band."""
        return tuple(p for planes in self.planes.values() for p in planes if p.band == band)

    def bands(self) -> tuple[str, ...]:
        """Every band that an input takes, once."""
        return tuple(dict.fromkeys(band for spec in self.inputs for band in spec.bands))

    def fail(self, rows: Iterable[int], reason: Reason, detail: str) -> None:
        """These rows have no image; what was said first of a row stands."""
        text = " ".join(detail.split())[:300]
        for row in rows:
            self.failures.setdefault(int(row), Failure(int(row), reason, text))

    def mark(self, rows: Int64[np.ndarray, " k"], flag: Flag) -> None:
        """Set a quality bit of these rows."""
        self.flags[rows] |= np.uint32(flag)

    def wanting(self) -> Int64[np.ndarray, " k"]:
        """Rows that other pixels of the same source may serve: those that fail for what is in
        their pixels, and those with a band that was filled."""
        failed = [row for row, failure in self.failures.items() if failure.reason in _OF_PIXELS]
        rows = np.flatnonzero(self.flags & np.uint32(Flag.MISSING_BAND))
        return np.union1d(rows, np.array(failed, np.int64)).astype(np.int64)

    def adopt(self, rows: Int64[np.ndarray, " k"], other: Collector) -> None:
        """Take the images of `other`, whose rows are `rows` here, wherever they are better: where
        this has none, or where the other one has all bands. The rules were applied to both."""
        self.bytes_read += other.bytes_read
        for mine, theirs in zip(rows[other.alive()].tolist(), other.alive().tolist(), strict=True):
            if mine not in self.failures and other.flags[theirs] & np.uint32(Flag.MISSING_BAND):
                continue
            for name, images in self.images.items():
                images[mine] = other.images[name][theirs]
            self.flags[mine] = other.flags[theirs]
            self.failures.pop(mine, None)

    def alive(self) -> Int64[np.ndarray, " k"]:
        """Rows without a failure so far."""
        mask = np.ones(self.requested, bool)
        mask[list(self.failures)] = False
        return np.flatnonzero(mask)


def finish(collector: Collector, options: ReaderOptions, sources: pa.Table) -> CutoutBatch:
    """Apply the rules and pack the result."""
    apply_rules(collector, options, sources)
    return pack(collector)


def apply_rules(collector: Collector, options: ReaderOptions, sources: pa.Table) -> None:
    """Apply missing-band, mask, zero-point, resampling and quality rules."""
    _unobserved_bands(collector)
    _missing_bands(collector, options)
    for spec in collector.inputs:
        for index, plane in enumerate(collector.planes[spec.name]):
            rows = collector.alive()
            rows = rows[plane.present[rows]]
            _flag_and_blank(collector, plane, rows, options.mask.values)
            scale = np.ones(collector.requested)
            if spec.zero_point_mag is not None and options.zero_point is not None:
                found = zero_points(options.zero_point, plane.band, sources, plane.cards)
                scale = _scale(collector, plane, rows, spec.zero_point_mag, found)
            _blank_absurd(collector, plane, rows, scale)
            if np.any(scale[rows] != 1.0):
                _multiply(plane.pixels, scale)
            target = collector.images[spec.name][:, index]
            if plane.window.resampled:
                target[rows] = resample(plane.pixels[rows], plane.window)
                collector.mark(rows, Flag.RESAMPLED)
            _judge(collector, plane, rows, target, options.max_bad_fraction)


def _unobserved_bands(collector: Collector) -> None:
    """A band without one finite pixel in a stamp whose other bands have some was not observed
    there: it is missing, as if it had no file."""
    planes = [plane for planes in collector.planes.values() for plane in planes]
    empty = np.zeros((len(planes), collector.requested), bool)
    for plane, blank in zip(planes, empty, strict=True):
        rows = collector.alive()
        rows = rows[plane.present[rows]]
        plane.look_at(rows[~plane.seen[rows]])
        suspects = plane.suspects
        good = np.isfinite(plane.pixels[suspects])
        if plane.outside is not None:
            good &= ~plane.outside[suspects]
        blank[suspects] = ~good.any(axis=(1, 2))
        if plane.outside is not None:  # a band may have a grid of its own that ends elsewhere
            blank[plane.present & plane.outside.all(axis=(1, 2))] = True
    observed = np.zeros(collector.requested, bool)
    for plane, blank in zip(planes, empty, strict=True):
        observed |= plane.present & ~blank
    for plane, blank in zip(planes, empty, strict=True):
        plane.present &= ~(blank & observed)


def _missing_bands(collector: Collector, options: ReaderOptions) -> None:
    """Rows that lack a band fail or get zeros there; rows that lack every band fail."""
    planes = [(name, i, p) for name, ps in collector.planes.items() for i, p in enumerate(ps)]
    some = np.zeros(collector.requested, bool)
    for _, _, plane in planes:
        some |= plane.present
    collector.fail(np.flatnonzero(~some), Reason.NOT_FOUND, "no pixels of this source")
    for name, index, plane in planes:
        missing = np.flatnonzero(~plane.present & some)
        if not len(missing):
            continue
        if options.missing_band == "fail":
            collector.fail(missing, Reason.MISSING_BAND, f"band {plane.band}")
        else:
            collector.images[name][missing, index] = 0.0
            collector.mark(missing, Flag.MISSING_BAND)


def _flag_and_blank(
    collector: Collector,
    plane: Plane,
    rows: Int64[np.ndarray, " k"],
    mask_values: tuple[float, ...],
) -> None:
    """Say why pixels are bad, and make every bad pixel NaN."""
    pixels = plane.pixels
    for value in mask_values:
        # Most stamps lie far below the value that means "masked", by their largest pixel.
        near = rows[~(plane.largest[rows] < abs(np.float32(value)))]
        hit = near[(pixels[near] == np.float32(value)).any(axis=(1, 2))]
        if len(hit):
            plane.need_masked()[hit] |= pixels[hit] == np.float32(value)
    collector.mark(np.intersect1d(plane.suspects, rows), Flag.NAN_FILLED)
    for bad, flag in ((plane.outside, Flag.EDGE), (plane.masked, Flag.MASKED)):
        if bad is None:
            continue
        hit = rows[bad[rows].any(axis=(1, 2))]
        collector.mark(hit, flag)
        pixels[hit] = np.where(bad[hit], np.float32(np.nan), pixels[hit])
        plane.bad[hit] = True


def _scale(
    collector: Collector,
    plane: Plane,
    rows: Int64[np.ndarray, " k"],
    target_mag: float,
    found: Float64[np.ndarray, " n"],
) -> Float64[np.ndarray, " n"]:
    """What brings pixels of zero points `found` (mag, NaN where unknown) to `target_mag`."""
    bad = rows[~np.isfinite(found[rows])]
    collector.fail(bad, Reason.BAD_METADATA, f"band {plane.band}: zero point missing or absurd")
    largest = float(np.finfo(np.float32).max)
    return np.asarray(np.minimum(np.nan_to_num(factors(found, target_mag), nan=1.0), largest))


def _blank_absurd(
    collector: Collector,
    plane: Plane,
    rows: Int64[np.ndarray, " k"],
    scale: Float64[np.ndarray, " n"],
) -> None:
    """Make NaN of what `scale` would bring beyond any flux that a sky has."""
    limit = LARGEST_FLUX / scale
    high = rows[~(plane.largest[rows] <= limit[rows])]
    absurd = np.abs(plane.pixels[high]) > limit[high, None, None]
    hit = absurd.any(axis=(1, 2))
    plane.pixels[high[hit]] = np.where(absurd[hit], np.float32(np.nan), plane.pixels[high[hit]])
    collector.mark(high[hit], Flag.NAN_FILLED)
    plane.bad[high[hit]] = True


def _multiply(pixels: Plane3D, scale: Float64[np.ndarray, " n"]) -> None:
    """In place and for all rows, which is faster than for most of them; rows without pixels hold
    what the memory held, which may overflow."""
    factor = scale.astype(np.float32)
    one = factor[0] if len(factor) and bool((factor == factor[0]).all()) else None
    with np.errstate(over="ignore", invalid="ignore"):
        np.multiply(pixels, factor[:, None, None] if one is None else one, out=pixels)


def _judge(
    collector: Collector,
    plane: Plane,
    rows: Int64[np.ndarray, " k"],
    target: Plane3D,
    max_bad_fraction: float,
) -> None:
    """Fill what may be filled; rows that may not be used become failures."""
    if not plane.window.resampled:
        # The first look told which rows need a second one.
        touched = np.intersect1d(plane.suspects, rows)
        constant = np.setdiff1d(np.intersect1d(plane.constant, rows), touched)
        collector.fail(constant, Reason.CONSTANT_IMAGE, f"band {plane.band}: all pixels are equal")
        rows = touched
    stamps: Float32[np.ndarray, "k y x"] = target[rows]
    verdict = repair(stamps, max_bad_fraction)
    target[rows] = stamps
    for row, fraction in zip(
        rows[verdict.bad_pixels].tolist(), verdict.fraction.tolist(), strict=True
    ):
        collector.fail(
            [row], Reason.BAD_PIXELS, f"band {plane.band}: {100 * fraction:.0f}% of pixels are bad"
        )
    collector.fail(
        rows[verdict.constant], Reason.CONSTANT_IMAGE, f"band {plane.band}: all pixels are equal"
    )


def pack(collector: Collector) -> CutoutBatch:
    """The images of all rows without a failure, and the failures."""
    rows, flags = collector.alive(), collector.flags
    if len(rows) < collector.requested:
        collector.images = {name: array[rows] for name, array in collector.images.items()}
        flags = flags[rows]
    return CutoutBatch(
        requested=collector.requested,
        rows=rows.astype(np.int64),
        images=collector.images,
        flags=flags,
        failures=tuple(collector.failures[row] for row in sorted(collector.failures)),
        bytes_read=collector.bytes_read,
    )
