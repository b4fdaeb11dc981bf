"""Luminous red galaxies of Pan-STARRS1 frames: lenses whose arcs nobody sees at this depth."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import h5py
import numpy as np

from training.simulate.instrument import Instrument
from training.simulate.real import RealHost, Split, measured_host, split_of

if TYPE_CHECKING:
    from jaxtyping import Float32

FILES = ("ps1_lenses/ps1_catalogue.csv", "ps1_lenses/ps1_fields_120px.h5")
_BANDS = "grizy"
_GROUP = "unresolved_galaxy_lens"


def name_of(row: Mapping[str, str]) -> str:
    """What an object of the frames is called; its folder where the catalogue has no name."""
    return row["name"] or row["folder"]


def load(data: Path, instrument: Instrument, split: Split) -> tuple[RealHost, ...]:
    """Lensed quasars, supernovae and every lens with a visible or possible arc are left out, as are
    frames with a missing band."""
    table, frames = (data / name for name in FILES)
    if not table.is_file() or not frames.is_file():
        return ()
    with table.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    places = [_BANDS.index(band) for band in instrument.bands]
    with h5py.File(frames) as file:
        found = [
            _host(row, file["images"][index][places], instrument)
            for index, row in enumerate(rows)
            if _is_host(row) and split_of(row["name"]) == split
        ]
    return tuple(host for host in found if host is not None)


def _is_host(row: dict[str, str]) -> bool:
    return row["group"] == _GROUP and row["arc_visible_by_eye"] == "no"


def _host(
    row: dict[str, str], counts: Float32[np.ndarray, "band y x"], instrument: Instrument
) -> RealHost | None:
    exposure = np.array([float(row[f"exptime_{band}"]) for band in instrument.bands])
    if not (exposure > 0).all():
        return None
    gain = np.array([instrument.noise[band].gain for band in instrument.bands])
    return measured_host(
        name_of(row),
        (counts / exposure[:, None, None]).astype(np.float32),
        instrument,
        electrons=exposure * gain,
        redshift=float(row["z_lens"] or "nan"),
    )
