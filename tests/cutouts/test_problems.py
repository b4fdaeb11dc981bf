"""What `check` warns of: files of coadd tiles that will cost sources."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from astropy.io import fits

from lenspipe import cutouts
from lenspipe.cutouts.base import Inspector


def _tile(path: Path, scale_arcsec: float = 0.25) -> None:
    header = fits.Header({"CTYPE1": "RA---TAN", "CTYPE2": "DEC--TAN", "CRVAL1": 40.0})
    header.update(CRVAL2=30.0, CRPIX1=8.5, CRPIX2=8.5)
    header.update(CDELT1=-scale_arcsec / 3600, CDELT2=scale_arcsec / 3600)
    fits.PrimaryHDU(np.zeros((16, 16), np.float32), header).writeto(path)


def test_tiles_that_will_cost_sources_are_named(tmp_path: Path) -> None:
    for name in ("a_g", "a_r", "b_g", "c_g", "c_r", "d_r"):
        _tile(tmp_path / f"{name}.fits", 0.5 if name == "d_r" else 0.25)
    (tmp_path / "c_r.fits").write_bytes(b"SIMPLE  = no FITS at all")
    block = {
        "reader": "coadd",
        "tiles": "*.fits",
        "bands": {"g": "{tile}_g.fits", "r": "{tile}_r.fits"},
    }
    options = cutouts.options_model("coadd").model_validate(block)
    reader = cutouts.open_reader(options, str(tmp_path))
    assert reader.describe()["r"].files == 3
    assert isinstance(reader, Inspector)
    lines = reader.problems()
    assert lines[:2] == ["tile b: no band r", "tile d: no band g"]
    unreadable, scale = lines[2:]
    assert unreadable.startswith(f"{tmp_path}/c_r.fits: ")
    assert (
        scale == f"{tmp_path}/d_r.fits: 0.5 arcsec per pixel, not 0.25 as other tiles of its band"
    )


def test_sound_tiles_give_no_warning(tmp_path: Path) -> None:
    _tile(tmp_path / "a_g.fits")
    block = {"reader": "coadd", "tiles": "*.fits", "bands": {"g": "{tile}_g.fits"}}
    options = cutouts.options_model("coadd").model_validate(block)
    reader = cutouts.open_reader(options, str(tmp_path))
    assert isinstance(reader, Inspector)
    assert list(reader.problems()) == []
