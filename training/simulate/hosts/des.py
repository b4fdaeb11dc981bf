"""Galaxies of the Dark Energy Survey with their stellar velocity dispersions."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from astropy.io import fits

from training.simulate.instrument import Instrument
from training.simulate.real import RealHost, Split, measured_host, split_of

_FOLDER = "des_galaxies"
FILES = (f"{_FOLDER}/*.fits", f"{_FOLDER}/map.txt")
# Zero point of the stamps (AB).
_ZERO_POINT_MAG = 30.0
# DES goes half a magnitude deeper than where Pan-STARRS hosts end.
_FAINTEST_I_MAG = 21.3


def load(data: Path, instrument: Instrument, split: Split) -> tuple[RealHost, ...]:
    """One galaxy per stamp, called `des-galaxy-NUMBER`; redshifts are not known."""
    files = [data / _FOLDER / f"{band}.fits" for band in instrument.bands]
    table = data / _FOLDER / "map.txt"
    if not table.is_file() or not all(path.is_file() for path in files):
        return ()
    sigma = np.loadtxt(table, skiprows=1)[:, 0]
    scale = np.float32(10.0 ** (0.4 * (instrument.zero_point_mag - _ZERO_POINT_MAG)))
    frames = scale * np.stack([np.asarray(fits.getdata(path), np.float32) for path in files], 1)
    electrons = np.array([instrument.noise[band].electrons for band in instrument.bands])
    found = [
        measured_host(
            name,
            frame,
            instrument,
            electrons=electrons,
            faintest_i_mag=_FAINTEST_I_MAG,
            sigma_km_s=float(sigma[number]),
        )
        for number, frame in enumerate(frames)
        if split_of(name := f"des-galaxy-{number:02d}") == split
    ]
    return tuple(host for host in found if host is not None)
