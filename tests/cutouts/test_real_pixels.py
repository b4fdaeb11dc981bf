"""Readers on real pixels: Pan-STARRS1 systems, a CFHTLS field, Bologna challenge images."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from warnings import catch_warnings, simplefilter

import h5py
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pytest
from astropy.io import fits
from astropy.wcs import WCS, FITSFixedWarning

from lenspipe import cutouts
from lenspipe.contracts import Flag, InputSpec
from lenspipe.cutouts.base import Reader
from lenspipe.cutouts.faults import UnreadableError
from lenspipe.cutouts.fits.fitsfile import open_fits
from lenspipe.cutouts.fits.skywcs import sky_wcs
from lenspipe.cutouts.formats.stamps import Options as StampOptions
from lenspipe.cutouts.formats.stamps import list_stamps
from lenspipe.errors import InputError

pytestmark = pytest.mark.data

PS1_BANDS = ("g", "r", "i", "z", "y")


def open_reader(base: Path, **options: Any) -> Reader:
    model = cutouts.options_model(options["reader"])
    return cutouts.open_reader(model.model_validate(options), str(base))


@pytest.fixture(scope="module")
def systems(data: Path) -> pa.Table:
    """The twelve Pan-STARRS1 systems of which there are raw FITS files."""
    found = pa.csv.read_csv(data / "ps1_lenses" / "ps1_catalogue.csv")
    names = {path.name[:-7] for path in (data / "ps1_lenses" / "raw_fits").glob("*.fits")}
    numbered = found.append_column("row", pa.array(np.arange(found.num_rows)))
    kept = numbered.filter(pc.is_in(numbered["folder"], pa.array(sorted(names))))
    assert kept.num_rows == 12
    return kept.append_column("object_id", kept["folder"])


def test_raw_fits_and_hdf5_of_the_same_systems_give_the_same_pixels(
    data: Path, systems: pa.Table
) -> None:
    base = data / "ps1_lenses"
    stamps = open_reader(
        base,
        reader="stamps",
        path="raw_fits/{folder}_{band}.fits",
        bands={band: band for band in PS1_BANDS},
        zero_point={"exptime_header": "EXPTIME"},
        crop=True,
        max_bad_fraction=1.0,
    )
    stores = {
        "ps1_grizy_70px.h5": {"row": "row"},
        "ps1_fields_120px.h5": {"ids": "name", "id_column": "folder"},
    }
    for size in (48, 70):
        spec = InputSpec("image", ("g", "r", "i"), size, 0.25, 27.0)
        stamps.check([spec])
        expected = stamps.read(systems, [spec])
        assert len(expected) == 12
        for path, finder in stores.items():
            store = open_reader(
                base,
                reader="hdf5",
                path=path,
                bands=list(PS1_BANDS),
                zero_point={"exptime_column": "exptime_{band}"},
                crop=True,
                max_bad_fraction=1.0,
                **finder,
            )
            store.check([spec])
            found = store.read(systems, [spec])
            # The 120-pixel file keeps 12 bits of mantissa; the other is exact, and the header's
            # exposure time equals the catalogue's.
            rounding = 2.0**-12 if "120" in path else 0.0
            np.testing.assert_allclose(
                found.images["image"], expected.images["image"], rtol=rounding
            )


def test_a_cfhtls_field_through_coadd_is_resampled_at_its_zero_point(data: Path) -> None:
    base = data / "survey_fields" / "humvi"
    options: dict[str, Any] = {
        "reader": "coadd",
        "tiles": "CFHTLS-test_*.fits",
        "bands": {band: f"{{tile}}_{band}.fits" for band in "gri"},
        "zero_point": {"header": "MZP_AB"},
    }
    model = InputSpec("image", ("g", "r", "i"), 48, 0.25, 30.0)
    with pytest.raises(InputError, match=r"pixel scale of band g: .* found 0\.186 arcsec"):
        open_reader(base, **options).check([model])
    reader = open_reader(base, resample=True, **options)
    reader.check([model])
    path = base / "CFHTLS-test_i.fits"
    header = fits.getheader(path)
    header["RADESYS"] = header.pop("RADECSYS")
    x, y = np.array([100.0, 220.0, 330.0]), np.array([100.0, 300.0, 200.0])
    ra, dec = WCS(header).all_pix2world(x, y, 0)
    table = pa.table({"object_id": np.arange(3), "ra": ra, "dec": dec})
    batch = reader.read(table, [model])
    assert batch.flags.tolist() == [Flag.RESAMPLED] * 3
    native = fits.getdata(path)
    # 48 model pixels of 0.25 are 64.5 native ones: the flux of the square, its rim by area.
    for row, (column, line) in enumerate(zip(x.astype(int), y.astype(int), strict=True)):
        low, high = -24.5 * 0.25 / 0.186, 23.5 * 0.25 / 0.186
        steps = np.arange(-40, 40)
        part = np.clip(np.minimum(high, steps + 0.5) - np.maximum(low, steps - 0.5), 0, 1)
        window = native[line - 40 : line + 40, column - 40 : column + 40]
        total = np.einsum("yx,y,x->", window.astype(float), part, part)
        assert batch.images["image"][row, 2].sum() == pytest.approx(total, rel=1e-3)
    # The same field at its own scale is cut without touching a value.
    own = InputSpec("image", ("i",), 48, 0.186, 30.0)
    stamp = open_reader(base, **options).read(table, [own]).images["image"][0, 0]
    np.testing.assert_array_equal(stamp, native[76:124, 76:124])


def test_bologna_stamps_in_radians_with_masked_ground_pixels(data: Path) -> None:
    base = data / "bologna_samples"
    block = {
        "reader": "stamps",
        "path": "{band}-{object_id}.fits",
        "bands": {"r": "imageSDSS_R", "g": "imageSDSS_G"},
        "position": {"unit": "rad"},
        "mask": {"values": [100]},
    }
    options = StampOptions.model_validate(block)
    table = list_stamps(options, str(base))
    assert table["object_id"].to_pylist() == ["100002", "100004"]
    card = fits.getheader(base / "imageSDSS_R-100004.fits")
    assert table["ra"][1].as_py() == pytest.approx(np.degrees(card["RA"]) % 360)
    assert table["dec"][1].as_py() == pytest.approx(np.degrees(card["DEC"]))
    spec = InputSpec("image", ("r", "g"), 101, 0.2)
    reader = open_reader(base, **block)
    reader.check([spec])
    batch = reader.read(table, [spec])
    for row, name in enumerate(table["object_id"].to_pylist()):
        raw = np.stack([fits.getdata(base / f"imageSDSS_{b}-{name}.fits") for b in "RG"])
        masked = raw == 100
        failed = [f.row for f in batch.failures]
        if row in failed:
            assert (masked.mean(axis=(1, 2)) > 0.25).any()
            continue
        index = batch.rows.tolist().index(row)
        assert batch.flags[index] == (Flag.MASKED if masked.any() else 0)
        np.testing.assert_array_equal(batch.images["image"][index][~masked], raw[~masked])
        assert batch.images["image"].max() < 1e-6


def test_every_real_fits_image_equals_astropys(data: Path) -> None:
    paths = sorted(data.rglob("*.fits"))
    read = 0
    for path in paths:
        with fits.open(path, memmap=False, ignore_blank=True) as units:
            for number, unit in enumerate(units):
                if unit.is_image and unit.header["NAXIS"] == 2 and unit.size:
                    with open_fits(str(path)) as file:
                        image = file.image(number)
                        found = image.rows(0, image.shape[0])
                        np.testing.assert_array_equal(found, unit.data, err_msg=str(path))
                    read += 1
    assert read > 100


def test_every_real_header_and_wcs_equals_astropys(data: Path) -> None:
    values = positions = 0
    for path in sorted(data.rglob("*.fits")):
        opened = fits.open(path, memmap=False, ignore_blank=True)
        with opened as units, open_fits(str(path), whole=True) as file:
            for number, unit in enumerate(units):
                header = unit.header
                if not unit.is_image or header["NAXIS"] != 2:
                    continue
                hdu = file.image(number).hdu
                for card in header.cards:
                    # Commentary, long texts over several cards and double keys are astropy's.
                    plain = card.keyword in hdu.cards and header.count(card.keyword) == 1
                    if plain and not isinstance(card.value, fits.card.Undefined | complex):
                        found = hdu.value(card.keyword)
                        if not (isinstance(card.value, str) and len(card.value) > 60):
                            assert found == card.value, (path, card.keyword)
                            values += 1
                try:
                    grid = sky_wcs(hdu)
                except UnreadableError:
                    continue
                x, y = np.array([0.0, 3.0, 7.5]), np.array([1.0, 2.5, 9.0])
                if "RADECSYS" in header:
                    header["RADESYS"] = header.pop("RADECSYS")
                with catch_warnings():
                    simplefilter("ignore", FITSFixedWarning)
                    ra, dec = WCS(header, naxis=2).all_pix2world(x, y, 0)
                np.testing.assert_allclose(grid.pixels(ra, dec), (x, y), atol=1e-5)
                positions += 1
    assert values > 5000
    assert positions > 50


def test_the_real_hdf5_states_its_bands(data: Path) -> None:
    with h5py.File(data / "ps1_lenses" / "ps1_grizy_70px.h5") as file:
        assert file["images"].attrs["bands"] == "grizy"
    wrong = open_reader(
        data / "ps1_lenses",
        reader="hdf5",
        path="ps1_grizy_70px.h5",
        bands=["r", "g", "i", "z", "y"],
        row="row",
    )
    with pytest.raises(InputError, match="expected g, r, i, z, y, found r, g, i, z, y"):
        wrong.describe()
