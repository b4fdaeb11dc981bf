"""The page on instruments has the figures of the files, and names every key and kind."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
from pydantic import BaseModel

from tests.training.simulate.test_instruments import every_grid
from training.simulate.colours import KINDS
from training.simulate.instrument import Instrument, Noise, Psf, instrument_names
from training.simulate.passband import Passband

PAGE = (Path(__file__).parents[3] / "docs" / "instruments.md").read_text("utf-8")


def row(name: str, grid: str, instrument: Instrument, band: str) -> str:
    rms, step = instrument.sky_rms(band), instrument.pixel_scale_arcsec
    faint = instrument.zero_point_mag - 2.5 * np.log10(rms / step)
    psf = instrument.psf[band].fwhm_arcsec
    return (
        f"| `{name}` | `{grid}` | {band} | {step:g} | {psf:.2f} | {rms:.3g} | "
        f"{instrument.zero_point_mag:g} | {faint:.2f} |"
    )


def test_the_table_is_that_of_the_files() -> None:
    expected = [
        row(name, grid, instrument, band)
        for name in instrument_names()
        for grid, instrument in every_grid(name).items()
        for band in instrument.bands
    ]
    table = [line for line in PAGE.splitlines() if line.startswith("| `") and line.count("|") == 9]
    assert table == expected


def test_every_key_is_named() -> None:
    section = PAGE.split("## Keys")[1].split("\n## ")[0]
    named = set(re.findall(r"^\| `([\w.]+)`", section, flags=re.MULTILINE))
    blocks: dict[str, type[BaseModel]] = {"psf": Psf, "noise": Noise, "filters": Passband}
    plain = set(Instrument.model_fields) - set(blocks)
    inner = {f"{name}.BAND.{key}" for name, block in blocks.items() for key in block.model_fields}
    assert named == plain | inner | {"grids"}


def test_every_kind_of_spectrum_is_named() -> None:
    section = PAGE.split("## Colours")[1].split("\n## ")[0]
    assert re.findall(r"^\| `(\w+)`", section, flags=re.MULTILINE) == list(KINDS)
