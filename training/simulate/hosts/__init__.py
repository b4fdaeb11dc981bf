"""Real galaxies of a survey as deflectors and negatives: one file per instrument, of its name.

Each has `load(data, instrument, split)`, which gives the `RealHost`s of one side of the split that
lie in the folder of real data; none where the data is absent.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

from lenspipe import registry
from lenspipe.errors import InputError
from training.simulate.degrade import Taken, degrade
from training.simulate.instrument import Instrument, load_instrument
from training.simulate.observe import draw_conditions
from training.simulate.real import RealHost, Split, measured_host


def names() -> list[str]:
    """Instruments that have real galaxies."""
    return registry.names(sys.modules[__name__])


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
    found: tuple[RealHost, ...] = module.load(data, instrument, split)
    return tuple(host for host in found if _holds(host, least_pixels))


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
    return tuple(host for host in made if host is not None and _holds(host, least_pixels))


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


def _holds(host: RealHost, pixels: int) -> bool:
    """Whether a square of so many pixels about the galaxy lies in its frame."""
    height, width = host.frame.shape[1:]
    left, top = (round(place) - pixels // 2 for place in host.centre)
    return left >= 0 and top >= 0 and left + pixels <= width and top + pixels <= height
