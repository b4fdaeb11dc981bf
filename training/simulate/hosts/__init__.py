"""Real galaxies of a survey as deflectors and negatives: one file per instrument, of its name.

Each has `load(data, instrument, split)`, which gives the `RealHost`s of one side of the split that
lie in the folder of real data, none where the data is absent; and `FILES`, patterns of what it
reads there.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from lenspipe import registry
from lenspipe.errors import InputError
from training.simulate.degrade import Taken, degrade
from training.simulate.instrument import Instrument, load_instrument
from training.simulate.observe import draw_conditions
from training.simulate.real import RealHost, Split, measured_host

logger = logging.getLogger(__name__)


def names() -> list[str]:
    """Instruments that have real galaxies."""
    return registry.names(sys.modules[__name__])


def files(name: str) -> tuple[str, ...]:
    """Patterns of the files, in the folder of real data, that hold an instrument's galaxies."""
    if name not in names():
        return ()
    module = registry.load(sys.modules[__name__], name, "instrument")
    found: tuple[str, ...] = module.FILES
    return found


def load_hosts(
    data: Path | None, instrument: Instrument, split: Split = "training", least_pixels: int = 0
) -> tuple[RealHost, ...]:
    """Real galaxies of an instrument; none where there is no file for it or no data.

    least_pixels: side of a square about the galaxy that its frame must hold. InputError: no i band.
    """
    if data is None or instrument.name not in names():
        return ()
    if "i" not in instrument.bands:
        raise InputError("bands", "i among them, for real hosts", ", ".join(instrument.bands))
    module = registry.load(sys.modules[__name__], instrument.name, "instrument")
    return _large_enough(module.load(data, instrument, split), instrument.name, least_pixels)


def degraded_hosts(
    data: Path | None,
    other: str,
    instrument: Instrument,
    split: Split = "training",
    least_pixels: int = 0,
) -> tuple[RealHost, ...]:
    """Real galaxies of `other`, a deeper survey with the same bands, as `instrument` would have
    taken them, each under conditions drawn by its name; see `degrade`.

    InputError: no such instrument, or one without a band of these.
    """
    taken_by = load_instrument(other, instrument.bands)
    made = (_degraded(host, taken_by, instrument) for host in load_hosts(data, taken_by, split))
    return _large_enough([host for host in made if host is not None], other, least_pixels)


def _degraded(host: RealHost, taken_by: Instrument, instrument: Instrument) -> RealHost | None:
    rng = np.random.default_rng(list(host.name.encode()))
    seen = draw_conditions(rng, instrument)
    taken = Taken(
        taken_by.bands,
        taken_by.pixel_scale_arcsec,
        taken_by.zero_point_mag,
        [taken_by.psf[band].fwhm_arcsec for band in taken_by.bands],
        host.sky_rms.tolist(),
    )
    return measured_host(
        host.name,
        degrade(rng, host.frame, taken, instrument, seen),
        instrument,
        electrons=seen.electrons,
        rms=seen.sky_rms,
        redshift=host.redshift,
        sigma_km_s=host.sigma_km_s,
    )


def _large_enough(found: Sequence[RealHost], name: str, pixels: int) -> tuple[RealHost, ...]:
    kept = tuple(host for host in found if _holds(host, pixels))
    if len(kept) < len(found):
        left = len(found) - len(kept)
        told = "%s: %d of %d real galaxies are left out: their frames do not hold %d pixels"
        logger.info(told, name, left, len(found), pixels)
    return kept


def _holds(host: RealHost, pixels: int) -> bool:
    """Whether a square of so many pixels about the galaxy lies in its frame."""
    height, width = host.frame.shape[1:]
    left, top = (round(place) - pixels // 2 for place in host.centre)
    return left >= 0 and top >= 0 and left + pixels <= width and top + pixels <= height
