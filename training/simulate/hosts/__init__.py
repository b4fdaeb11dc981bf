"""Real galaxies of a survey as deflectors and negatives: one file per instrument, of its name.

Each has `load(data, instrument, split)`, which gives the `RealHost`s of one side of the split that
lie in the folder of real data; none where the data is absent.
"""

from __future__ import annotations

import sys
from pathlib import Path

from lenspipe import registry
from lenspipe.errors import InputError
from training.simulate.instrument import Instrument
from training.simulate.real import RealHost, Split


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


def _holds(host: RealHost, pixels: int) -> bool:
    """Whether a square of so many pixels about the galaxy lies in its frame."""
    height, width = host.frame.shape[1:]
    left, top = (round(place) - pixels // 2 for place in host.centre)
    return left >= 0 and top >= 0 and left + pixels <= width and top + pixels <= height
