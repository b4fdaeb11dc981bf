from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from astropy.io import fits

from lenspipe import cutouts
from lenspipe.contracts import Flag, InputSpec, Reason
from lenspipe.cutouts.columns import Kind
from lenspipe.cutouts.formats.stamps import Options, StampReader, list_stamps
from lenspipe.errors import HopelessError, InputError

SPEC = InputSpec("image", ("g",), 8, 0.25)


def write(path: Path, seed: int = 0, side: int = 8, **cards: Any) -> np.ndarray[Any, Any]:
    pixels = np.random.default_rng(seed).normal(size=(side, side)).astype(np.float32)
    header = fits.Header({"CDELT1": -0.25 / 3600, "CDELT2": 0.25 / 3600})
    header.update(cards)
    path.parent.mkdir(parents=True, exist_ok=True)
    fits.PrimaryHDU(pixels, header).writeto(path)
    return pixels


def options(**more: Any) -> Options:
    block = {"reader": "stamps", "path": "{name}_{band}.fits", "bands": {"g": "g"}, **more}
    return Options.model_validate(block)


def table(*names: Any) -> pa.Table:
    numbers = np.arange(len(names))
    return pa.table(
        {"object_id": numbers, "ra": numbers * 1.0, "dec": numbers * 1.0, "name": names}
    )


def open_stamps(base: Path, **more: Any) -> StampReader:
    reader = cutouts.open_reader(options(**more), str(base))
    assert isinstance(reader, StampReader)
    return reader


def test_names_that_lead_out_of_the_folder_fail_and_read_nothing(tmp_path: Path) -> None:
    write(tmp_path / "secret_g.fits")
    inside = tmp_path / "inside"
    pixels = write(inside / "a_g.fits")
    names = ["a", "../secret", f"{tmp_path}/secret", "..", None, "x" * 10_000, "a\nb", "'\""]
    batch = open_stamps(inside).read(table(*names), [SPEC])
    assert batch.rows.tolist() == [0]
    np.testing.assert_array_equal(batch.images["image"][0, 0], pixels)
    found = {failure.row: failure.reason for failure in batch.failures}
    assert found == {
        **dict.fromkeys((1, 2, 3, 4), Reason.BAD_METADATA),
        5: Reason.UNREADABLE,
        6: Reason.NOT_FOUND,
        7: Reason.NOT_FOUND,
    }


def test_a_number_format_that_does_not_fit_the_column_is_refused(tmp_path: Path) -> None:
    write(tmp_path / "007_g.fits")
    reader = open_stamps(tmp_path, path="{object_id:03d}_{band}.fits")
    batch = reader.read(pa.table({"object_id": [7], "ra": [0.0], "dec": [0.0]}), [SPEC])
    assert len(batch) == 1
    text = pa.table({"object_id": ["7"], "ra": [0.0], "dec": [0.0]})
    with pytest.raises(HopelessError, match="whole numbers in column object_id, found string"):
        reader.read(text, [SPEC])


@pytest.mark.parametrize(
    ("spec", "kind"),
    [
        ("", Kind.NAME),
        (":>8", Kind.NAME),
        (":06d", Kind.WHOLE),
        (":.2f", Kind.NUMBER),
        (":s", Kind.TEXT),
    ],
)
def test_what_a_column_must_hold_follows_from_its_format(
    tmp_path: Path, spec: str, kind: Kind
) -> None:
    values = {Kind.WHOLE: 7, Kind.NUMBER: 0.5, Kind.TEXT: "a"}
    reader = open_stamps(tmp_path, path=f"{{nm{spec}}}_{{band}}.fits")
    assert [(need.field, need.name, need.kind) for need in reader.needs] == [
        ("cutouts.path", "nm", kind)
    ]
    for value in values.values():
        fits_in = kind.holds(pa.array([value]).type)
        try:
            format(value, spec[1:])
        except ValueError:
            assert not fits_in
        else:
            assert fits_in


def test_a_larger_stamp_is_cut_down_around_its_source_where_allowed(tmp_path: Path) -> None:
    pixels = write(tmp_path / "a_g.fits", side=13)
    batch = open_stamps(tmp_path, crop=True).read(table("a"), [SPEC])
    assert batch.flags.tolist() == [Flag.CROPPED]
    np.testing.assert_array_equal(batch.images["image"][0, 0], pixels[2:10, 2:10])
    batch = open_stamps(tmp_path).read(table("a"), [SPEC])
    assert batch.failures[0].reason is Reason.BAD_METADATA
    assert "13 x 13 pixels, 8 expected" in batch.failures[0].detail


def test_one_stamp_of_another_scale_fails_alone(tmp_path: Path) -> None:
    write(tmp_path / "a_g.fits")
    write(tmp_path / "b_g.fits", CDELT1=-1e-4, CDELT2=1e-4)
    batch = open_stamps(tmp_path).read(table("b", "a"), [SPEC])
    assert batch.rows.tolist() == [1]
    assert batch.failures[0].reason is Reason.BAD_METADATA


def test_inputs_of_two_scales_in_one_band_need_resampling(tmp_path: Path) -> None:
    pixels = write(tmp_path / "a_g.fits", side=19)
    coarse = InputSpec("coarse", ("g",), 8, 0.5)
    for order in ([SPEC, coarse], [coarse, SPEC]):
        with pytest.raises(
            InputError, match=r"expected 0\.5 arcsec of input coarse .* found 0\.25"
        ):
            open_stamps(tmp_path, crop=True).read(table("a"), order)
        batch = open_stamps(tmp_path, crop=True, resample=True).read(table("a"), order)
        np.testing.assert_array_equal(batch.images["image"][0, 0], pixels[5:13, 5:13])
        assert batch.images["coarse"][0].sum() == pytest.approx(
            np.einsum("yx,y,x->", pixels, *2 * [np.r_[0.5, np.ones(15), 0.5, 0, 0]]), rel=1e-4
        )


def test_zero_points_and_exposure_times_come_from_each_header(tmp_path: Path) -> None:
    stamps = [write(tmp_path / f"{n}_g.fits", n, EXPTIME=t) for n, t in ((0, 10.0), (1, 100.0))]
    write(tmp_path / "2_g.fits", 2, EXPTIME=0.0)
    write(tmp_path / "3_g.fits", 3)
    spec = InputSpec("image", ("g",), 8, 0.25, 27.5)
    reader = open_stamps(tmp_path, zero_point={"exptime_header": "EXPTIME"})
    batch = reader.read(table("0", "1", "2", "3"), [spec])
    np.testing.assert_allclose(batch.images["image"][0, 0], stamps[0], rtol=1e-6)
    np.testing.assert_allclose(batch.images["image"][1, 0], stamps[1] / 10, rtol=1e-6)
    assert [f.reason for f in batch.failures] == [Reason.BAD_METADATA] * 2


def test_masks_beside_the_stamps_and_in_them(tmp_path: Path) -> None:
    pixels = write(tmp_path / "a_g.fits")
    mask = np.zeros((8, 8), np.int32)
    mask[1, 1], mask[2, 2] = 1, 8
    fits.append(tmp_path / "a_g.fits", mask, fits.Header({"EXTNAME": "MASK"}))
    fits.PrimaryHDU(mask).writeto(tmp_path / "a_mask.fits")
    for block in ({"hdu": "MASK", "bits": [3]}, {"file": "{name}_mask.fits", "bits": [3]}):
        batch = open_stamps(tmp_path, mask=block).read(table("a"), [SPEC])
        assert batch.flags.tolist() == [Flag.MASKED]
        changed = batch.images["image"][0, 0] != pixels
        assert np.argwhere(changed).tolist() == [[2, 2]]
    (tmp_path / "a_mask.fits").unlink()
    batch = open_stamps(tmp_path, mask={"file": "{name}_mask.fits"}).read(table("a"), [SPEC])
    assert batch.failures[0].reason is Reason.UNREADABLE


def test_the_catalogue_columns_that_a_reader_needs(tmp_path: Path) -> None:
    reader = open_stamps(tmp_path, zero_point={"column": "zp_{band}"}, mask={"file": "{m}.fits"})
    assert reader.columns == {"name", "zp_g", "m"}
    with pytest.raises(InputError, match=r"cutouts\.mask\.file: expected a catalogue column m"):
        reader.locality(table("a"))


def test_one_template_for_several_bands_must_name_the_band(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"cutouts\.path: expected a template with \{band\}"):
        open_stamps(tmp_path, path="{name}.fits", bands={"g": "g", "r": "r"})


def test_a_folder_is_listed_with_positions_from_cards_in_radians(tmp_path: Path) -> None:
    write(tmp_path / "Band1" / "im_R-7.fits", RA=-0.001, DEC=0.5)
    write(tmp_path / "Band1" / "im_R-10.fits", RA=1.0, DEC=-0.25)
    write(tmp_path / "Band2" / "im_G-11.fits")
    (tmp_path / "Band1" / "notes.txt").touch()
    found = list_stamps(
        options(
            path="{band}-{object_id:d}.fits",
            bands={"r": "Band1/im_R", "g": "Band2/im_G"},
            position={"unit": "rad"},
        ),
        str(tmp_path),
    )
    assert found["object_id"].to_pylist() == [10, 11, 7]
    expected = np.degrees([1.0, np.nan, -0.001 + 2 * np.pi])
    np.testing.assert_allclose(found["ra"].to_numpy(), expected)
    np.testing.assert_allclose(found["dec"].to_numpy(), np.degrees([-0.25, np.nan, 0.5]))


def test_a_folder_is_listed_with_positions_from_the_wcs(tmp_path: Path) -> None:
    wcs: dict[str, Any] = {
        "CTYPE1": "RA---TAN",
        "CTYPE2": "DEC--TAN",
        "CRVAL1": 30.0,
        "CRVAL2": -5.0,
    }
    write(tmp_path / "a_g.fits", CRPIX1=5, CRPIX2=5, **wcs)
    (tmp_path / "b_g.fits").write_bytes(b"nothing")
    found = list_stamps(options(), str(tmp_path))
    assert found["object_id"].to_pylist() == found["name"].to_pylist() == ["a", "b"]
    np.testing.assert_allclose(found["ra"].to_numpy(), [30.0, np.nan])
    np.testing.assert_allclose(found["dec"].to_numpy(), [-5.0, np.nan])
    with pytest.raises(InputError, match=r"cutouts\.path: expected files"):
        list_stamps(options(path="none/{name}_{band}.fits"), str(tmp_path))


def test_localities_spread_over_names_and_null_names_have_none(tmp_path: Path) -> None:
    locality = open_stamps(tmp_path).locality(table("a", "b", "a", None))
    assert locality[0] == locality[2] >= 0
    assert locality[3] == -1


def test_masks_below_a_folder_with_braces(tmp_path: Path) -> None:
    base = tmp_path / "dr{band} [1]"
    pixels = write(base / "a_g.fits")
    mask = np.zeros((8, 8), np.uint8)
    mask[2, 3] = 1
    fits.PrimaryHDU(mask).writeto(base / "a_g.mask")
    reader = open_stamps(base, mask={"file": "{name}_{band}.mask"})
    assert {need.name for need in reader.needs} == {"name"}
    batch = reader.read(table("a"), [SPEC])
    assert batch.flags.tolist() == [Flag.MASKED]
    changed = batch.images["image"][0, 0] != pixels
    np.testing.assert_array_equal(np.argwhere(changed), [[2, 3]])
    listed = list_stamps(options(), str(base))
    assert listed["object_id"].to_pylist() == ["a"]


UNSIGNED = [np.uint8, np.uint16, np.uint32, np.uint64]


@pytest.mark.parametrize("kind", [*UNSIGNED, np.int16, np.int32, np.int64])
@pytest.mark.parametrize("reader", ["stamps", "coadd"])
def test_every_bit_of_every_mask(tmp_path: Path, kind: Any, reader: str) -> None:
    """FITS holds unsigned numbers as signed ones and an offset."""
    write(tmp_path / "a_g.fits", CTYPE1="RA---TAN", CTYPE2="DEC--TAN", CRPIX1=5, CRPIX2=5)
    width = np.dtype(kind).itemsize * 8
    mask = np.zeros(64, kind)
    mask[:width] = np.left_shift(np.ones(width, kind), np.arange(width, dtype=kind))
    fits.PrimaryHDU(mask.reshape(8, 8)).writeto(tmp_path / "a.mask")
    spec = InputSpec("image", ("g",), 8, 0.25)
    where = pa.table({"object_id": ["a"], "name": ["a"], "ra": [0.0], "dec": [0.0]})
    for bit in (0, width - 2, width - 1):
        block: dict[str, Any] = {"mask": {"file": "a.mask", "bits": [bit, bit]}}
        if reader == "coadd":
            block |= {"reader": "coadd", "tiles": "*.fits", "bands": {"g": "{tile}_g.fits"}}
        else:
            block |= {"reader": "stamps", "path": "{name}_{band}.fits", "bands": {"g": "g"}}
        model = cutouts.options_model(reader)
        opened = cutouts.open_reader(model.model_validate(block), str(tmp_path))
        batch = opened.read(where, [spec])
        assert not batch.failures
        assert batch.flags.tolist() == [Flag.MASKED]
        image = batch.images["image"][0, 0]
        filled = np.argwhere(image.ravel() == np.median(np.delete(image, bit)))
        assert bit in filled.ravel()
