from __future__ import annotations

import os
from collections import Counter
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pyarrow as pa
import pytest
from astropy.io import fits
from astropy.wcs import WCS

from lenspipe import cutouts
from lenspipe.contracts import CutoutBatch, Flag, InputSpec, Reason
from lenspipe.cutouts.base import Reader
from lenspipe.cutouts.faults import UnreadableError
from lenspipe.cutouts.fits.fitsfile import OpenFiles
from lenspipe.cutouts.formats.coadd import CoaddReader
from lenspipe.cutouts.geometry import stamp_origin
from lenspipe.errors import InputError

SCALE, SIDE, STEP = 0.25, 100, 80  # tiles of 100 pixels that overlap by 20
SPEC = InputSpec("image", ("g",), 12, SCALE)


def sky_image(width: int = 260, height: int = 100) -> np.ndarray[Any, Any]:
    return np.random.default_rng(4).normal(10, 1, (height, width)).astype(np.float32)


def header(x: int, **cards: Any) -> fits.Header:
    """A window of one mosaic that starts at its column x."""
    out = fits.Header({"CTYPE1": "RA---TAN", "CTYPE2": "DEC--TAN", "CRVAL1": 40.0, "CRVAL2": 30.0})
    out.update(CRPIX1=130.5 - x, CRPIX2=50.5, CDELT1=-SCALE / 3600, CDELT2=SCALE / 3600, **cards)
    return out


def sources(x: Any, y: Any) -> pa.Table:
    ra, dec = WCS(header(0)).all_pix2world(np.asarray(x, float), np.asarray(y, float), 0)
    return pa.table({"object_id": np.arange(len(ra)), "ra": ra, "dec": dec})


def write_tiles(folder: Path, image: np.ndarray[Any, Any], ending: str = ".fits") -> None:
    for number in range(3):
        x = number * STEP
        hdu = fits.CompImageHDU if ending == ".fits.fz" else fits.PrimaryHDU
        more = {"quantize_level": 0, "compression_type": "GZIP_1"} if "fz" in ending else {}
        hdu(image[:, x : x + SIDE], header(x), **more).writeto(folder / f"t{number}_g{ending}")


def open_coadd(base: Path | str, **options: Any) -> Reader:
    block = {"reader": "coadd", "tiles": "*.fits*", "bands": {"g": "{tile}_g.fits"}, **options}
    return cutouts.open_reader(cutouts.options_model("coadd").model_validate(block), str(base))


def reasons(batch: CutoutBatch) -> dict[int, Reason]:
    return {failure.row: failure.reason for failure in batch.failures}


def test_a_source_on_several_tiles_is_cut_where_it_is_most_interior(tmp_path: Path) -> None:
    image = sky_image()
    write_tiles(tmp_path, image)
    rng = np.random.default_rng(1)
    x, y = rng.uniform(8, 250, 300), rng.uniform(8, 90, 300)
    table = sources(x, y)
    reader = open_coadd(tmp_path)
    depth = np.array(
        [
            np.minimum(
                np.minimum(x - t * STEP + 0.5, t * STEP + SIDE - 0.5 - x),
                np.minimum(y + 0.5, 99.5 - y),
            )
            for t in range(3)
        ]
    )
    chosen = reader.locality(table)
    np.testing.assert_allclose(depth[chosen, np.arange(300)], depth.max(axis=0), atol=1e-6)
    batch = reader.read(table, [SPEC])
    assert len(batch) == 300
    x0, y0 = stamp_origin(x, 12), stamp_origin(y, 12)
    for row in np.flatnonzero(batch.flags == 0).tolist():
        expected = image[y0[row] : y0[row] + 12, x0[row] : x0[row] + 12]
        np.testing.assert_array_equal(batch.images["image"][row, 0], expected)
    assert (batch.flags == 0).sum() > 250


def test_stamps_at_the_edge_are_padded_and_flagged(tmp_path: Path) -> None:
    image = sky_image()
    write_tiles(tmp_path, image)
    table = sources([4.0, 130.0, 0.2, 400.0], [50.0, 50.0, 0.3, 50.0])
    batch = open_coadd(tmp_path).read(table, [SPEC])
    assert batch.rows.tolist() == [0, 1]
    assert batch.flags.tolist() == [Flag.EDGE, 0]
    assert reasons(batch) == {2: Reason.BAD_PIXELS, 3: Reason.NOT_FOUND}
    stamp = batch.images["image"][0, 0]
    np.testing.assert_array_equal(stamp[:, 2:], image[44:56, :10])
    np.testing.assert_allclose(stamp[:, :2], np.median(image[44:56, :10]), rtol=1e-6)


def test_positions_that_are_none_are_failures(tmp_path: Path) -> None:
    write_tiles(tmp_path, sky_image())
    table = pa.table(
        {"object_id": [1, 2, 3], "ra": [np.nan, 40.0, 40.0], "dec": [30.0, 120.0, None]}
    )
    reader = open_coadd(tmp_path)
    assert reader.locality(table).tolist() == [-1, -1, -1]
    batch = reader.read(table, [SPEC])
    assert reasons(batch) == dict.fromkeys(range(3), Reason.BAD_METADATA)


def test_compressed_and_remote_tiles_give_the_same_pixels(tmp_path: Path) -> None:
    image = sky_image()
    plain, packed = tmp_path / "plain", tmp_path / "packed"
    for folder, ending in ((plain, ".fits"), (packed, ".fits.fz")):
        folder.mkdir()
        write_tiles(folder, image, ending)
    store = fsspec.filesystem("memory")
    for path in (*plain.iterdir(), *packed.iterdir()):
        store.pipe_file(f"/coadd/{path.parent.name}/{path.name}", path.read_bytes())
    rng = np.random.default_rng(2)
    table = sources(rng.uniform(0, 250, 40), rng.uniform(0, 99, 40))
    expected = open_coadd(plain).read(table, [SPEC])
    for base in (packed, "memory://coadd/plain", "memory://coadd/packed"):
        reader = open_coadd(base)
        reader.check([SPEC])
        found = reader.read(table, [SPEC])
        np.testing.assert_array_equal(found.rows, expected.rows)
        np.testing.assert_array_equal(found.images["image"], expected.images["image"])
        np.testing.assert_array_equal(found.flags, expected.flags)


def test_bands_as_units_of_one_file_with_masks_and_zero_points(tmp_path: Path) -> None:
    image = sky_image(100)
    mask = np.zeros(image.shape, np.uint8)
    mask[48, 50], mask[50, 52] = 2, 4
    fits.HDUList(
        [
            fits.PrimaryHDU(),
            fits.ImageHDU(image, header(0, MAGZERO=25.0), name="G"),
            fits.ImageHDU(image * 2, header(0, MAGZERO=27.5), name="R"),
            fits.ImageHDU(mask, name="MASK"),
        ]
    ).writeto(tmp_path / "t.fits")
    bands = {"g": {"file": "{tile}.fits", "hdu": "G"}, "r": {"hdu": "R"}}
    spec = InputSpec("image", ("r", "g"), 12, SCALE, 27.5)
    table = sources([50.0, 80.0], [50.0, 50.0])
    options: dict[str, Any] = {"bands": bands, "zero_point": {"header": "MAGZERO"}}
    batch = open_coadd(tmp_path, mask={"hdu": "MASK", "bits": [1]}, **options).read(table, [spec])
    assert batch.flags.tolist() == [Flag.MASKED, 0]
    np.testing.assert_array_equal(batch.images["image"][1, 0], image[44:56, 74:86] * 2)
    np.testing.assert_allclose(batch.images["image"][1, 1], image[44:56, 74:86] * 10, rtol=1e-6)
    stamp = image[44:56, 44:56] * 2
    assert batch.images["image"][0, 0, 4, 6] != stamp[4, 6]  # bit 1: rejected
    assert batch.images["image"][0, 0, 6, 8] == stamp[6, 8]  # bit 2: kept
    fits.PrimaryHDU(mask[:50]).writeto(tmp_path / "small_mask.fits")
    batch = open_coadd(tmp_path, mask={"file": "small_mask.fits"}, **options).read(table, [spec])
    assert reasons(batch) == dict.fromkeys(range(2), Reason.UNREADABLE)
    assert "mask" in batch.failures[0].detail


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How often each file was opened, by name."""
    counts: Counter[str] = Counter()
    original = os.open

    def counted(path: Any, *args: Any, **options: Any) -> int:
        counts[Path(path).name] += 1
        return original(path, *args, **options)

    monkeypatch.setattr(os, "open", counted)
    return counts


def test_a_tile_is_opened_once_per_shard(tmp_path: Path, opened: Counter[str]) -> None:
    image = sky_image()
    for number in range(3):
        x = number * STEP
        units = [
            fits.ImageHDU(image[:, x : x + SIDE] * factor, header(x), name=name)
            for factor, name in ((1, "G"), (2, "R"), (3, "I"))
        ]
        mask = fits.ImageHDU(np.zeros((SIDE, SIDE), np.uint8), name="MASK")
        fits.HDUList([fits.PrimaryHDU(), *units, mask]).writeto(tmp_path / f"t{number}.fits")
        mask.writeto(tmp_path / f"t{number}.mask")
    bands = {name: {"hdu": name.upper()} for name in "gri"}
    table = sources([50.0, 60.0, 130.0, 230.0], [50.0] * 4)
    table = table.append_column("locality", pa.array([0, 0, 1, 2]))
    spec = InputSpec("image", ("g", "r", "i"), 12, SCALE)
    for mask_options in ({"hdu": "MASK"}, {"file": "{tile}.mask"}):
        reader = open_coadd(tmp_path, bands=bands, mask=mask_options)
        expected = {f"t{number}.fits": 1 for number in range(3)}
        if "file" in mask_options:
            expected |= {f"t{number}.mask": 1 for number in range(3)}
        opened.clear()
        for _ in range(2):
            batch = reader.read(table, [spec])
            assert opened == expected
            opened.clear()
        np.testing.assert_array_equal(
            batch.images["image"][2], [image[44:56, 124:136] * factor for factor in (1, 2, 3)]
        )


def two_bands(folder: Path, image: np.ndarray[Any, Any], spoil: Any) -> None:
    """The three tiles in bands g and r; `spoil(number, band, pixels)` gives what to write."""
    for number in range(3):
        x = number * STEP
        for band in "gr":
            pixels = spoil(number, band, image[:, x : x + SIDE].copy())
            if pixels is not None:
                fits.PrimaryHDU(pixels, header(x)).writeto(folder / f"t{number}_{band}.fits")


TWO = {"bands": {"g": "{tile}_g.fits", "r": "{tile}_r.fits"}}
BOTH = InputSpec("image", ("g", "r"), 12, SCALE)


@pytest.mark.parametrize("missing_band", ["fail", "fill"])
def test_a_band_that_the_tile_lacks_comes_from_the_next_tile(
    tmp_path: Path, missing_band: str
) -> None:
    image = sky_image()
    two_bands(tmp_path, image, lambda n, band, p: None if (n, band) == (1, "r") else p)
    # On tiles 0 and 1 (most interior in 1), 1 alone, 1 and 2.
    table = sources([91.0, 130.0, 168.0], [50.0] * 3)
    reader = open_coadd(tmp_path, missing_band=missing_band, **TWO)
    assert reader.locality(table).tolist() == [1, 1, 1]
    batch = reader.read(table, [BOTH])
    by_row = dict(zip(batch.rows.tolist(), batch.images["image"], strict=True))
    np.testing.assert_array_equal(by_row[2], [image[44:56, 162:174]] * 2)
    np.testing.assert_array_equal(by_row[0][:, :, :11], [image[44:56, 85:96]] * 2)
    if missing_band == "fail":
        assert reasons(batch) == {1: Reason.MISSING_BAND}
    else:
        assert not batch.failures
        assert batch.flags.tolist() == [0, Flag.MISSING_BAND, 0]
        np.testing.assert_array_equal(by_row[1][0], image[44:56, 124:136])


@pytest.mark.parametrize("empty", [np.nan, 0.0])
def test_an_empty_border_is_read_from_the_next_tile(tmp_path: Path, empty: float) -> None:
    image = sky_image()

    def border(number: int, band: str, pixels: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        if number == 1:
            pixels[:, :20] = empty
        return pixels

    two_bands(tmp_path, image, border)
    table = sources([91.0, 130.0, 91.0], [50.0, 50.0, 30.0])
    for shard in (table, table.append_column("locality", pa.array([1, 1, 1]))):
        batch = open_coadd(tmp_path, **TWO).read(shard, [BOTH])
        assert batch.flags.tolist() == [0, 0, 0]
        np.testing.assert_array_equal(batch.images["image"][0], [image[44:56, 85:97]] * 2)
        np.testing.assert_array_equal(batch.images["image"][2], [image[24:36, 85:97]] * 2)


def test_what_no_tile_can_serve_keeps_the_first_tiles_reason(tmp_path: Path) -> None:
    def spoil(number: int, band: str, pixels: np.ndarray[Any, Any]) -> Any:
        return (None if band == "r" else pixels) if number == 1 else pixels * np.nan

    two_bands(tmp_path, sky_image(), spoil)
    batch = open_coadd(tmp_path, **TWO).read(sources([91.0], [50.0]), [BOTH])
    assert reasons(batch) == {0: Reason.MISSING_BAND}


def test_every_band_of_a_file_cut_short_is_told_why(tmp_path: Path) -> None:
    units = [fits.ImageHDU(sky_image(100), header(0), name=name) for name in "GR"]
    path = tmp_path / "t0.fits"
    fits.HDUList([fits.PrimaryHDU(), *units]).writeto(path)
    path.write_bytes(path.read_bytes()[:-50_000])
    bands = {"g": {"hdu": "G"}, "r": {"hdu": "R"}, "i": {"hdu": "I"}}
    reader = open_coadd(tmp_path, bands=bands, pixel_scale_arcsec=SCALE)
    with OpenFiles() as files:
        for _ in range(2):  # the second look finds the file open
            with pytest.raises(UnreadableError, match="truncated"), files.use(str(path)) as file:
                file.image("I")
    batch = reader.read(sources([50.0], [50.0]), [InputSpec("image", ("g", "r"), 12, SCALE)])
    assert reasons(batch) == {0: Reason.UNREADABLE}


def test_a_missing_zero_point_card_fails_its_rows(tmp_path: Path) -> None:
    write_tiles(tmp_path, sky_image())
    spec = InputSpec("image", ("g",), 12, SCALE, 27.0)
    batch = open_coadd(tmp_path, zero_point={"header": "ZP"}).read(sources([50.0], [50.0]), [spec])
    assert reasons(batch) == {0: Reason.BAD_METADATA}


def test_a_broken_strip_of_a_compressed_tile_fails_only_its_rows(tmp_path: Path) -> None:
    image = sky_image(400, 2000)
    path = tmp_path / "t_g.fits.fz"
    fits.CompImageHDU(image, header(0), compression_type="GZIP_1", quantize_level=0).writeto(path)
    data = bytearray(path.read_bytes())
    data[-20_000:-10_000] = bytes(10_000)  # the compressed bytes of rows near the top
    path.write_bytes(bytes(data))
    table = sources([50.0, 50.0, 50.0], [100.0, 1000.0, 1985.0])
    batch = open_coadd(tmp_path).read(table, [SPEC])
    assert batch.rows.tolist() == [0, 1]
    assert reasons(batch) == {2: Reason.UNREADABLE}


def test_a_tile_whose_header_is_gone_leaves_its_sources_unreadable(tmp_path: Path) -> None:
    write_tiles(tmp_path, sky_image())
    (tmp_path / "t2_g.fits").write_bytes(b"not a FITS file")
    batch = open_coadd(tmp_path).read(sources([50.0, 230.0], [50.0, 50.0]), [SPEC])
    assert batch.rows.tolist() == [0]
    assert reasons(batch) == {1: Reason.UNREADABLE}
    assert "t2" in batch.failures[0].detail


def test_a_header_that_could_not_be_read_once_is_tried_again_by_the_next_read(
    tmp_path: Path,
) -> None:
    write_tiles(tmp_path, sky_image())
    path = tmp_path / "t2_g.fits"
    sound = path.read_bytes()
    path.write_bytes(b"half a copy")
    reader, table = open_coadd(tmp_path), sources([50.0, 230.0], [50.0, 50.0])
    planned = table.append_column("locality", pa.array([0, 2]))
    for each in (table, planned):
        assert reasons(reader.read(each, [SPEC])) == {1: Reason.UNREADABLE}
    path.write_bytes(sound)
    for each in (planned, table):
        assert reader.read(each, [SPEC]).rows.tolist() == [0, 1]
    beside = reader.read(sources([50.0, 900.0], [50.0, 50.0]), [SPEC])
    assert reasons(beside) == {1: Reason.NOT_FOUND}


def test_a_tile_that_vanishes_after_the_listing_fails_its_rows(tmp_path: Path) -> None:
    write_tiles(tmp_path, sky_image())
    reader = open_coadd(tmp_path)
    table = sources([50.0, 230.0], [50.0, 50.0])
    assert reader.locality(table).tolist() == [0, 2]
    (tmp_path / "t2_g.fits").unlink()
    assert reasons(reader.read(table, [SPEC])) == {1: Reason.UNREADABLE}


def test_the_plans_locality_saves_headers_and_is_not_believed_blindly(tmp_path: Path) -> None:
    write_tiles(tmp_path, sky_image())
    table = sources([50.0, 90.0, 90.0], [50.0, 50.0, 50.0])
    expected = open_coadd(tmp_path).read(table, [SPEC]).images["image"]
    reader = open_coadd(tmp_path)
    assert isinstance(reader, CoaddReader)
    planned = table.append_column("locality", pa.array([0, 1, 1]))
    np.testing.assert_array_equal(reader.read(planned, [SPEC]).images["image"], expected)
    assert set(reader._tiling._footprints) == {0, 1}
    wrong = table.append_column("locality", pa.array([2, -1, 99]))
    np.testing.assert_array_equal(reader.read(wrong, [SPEC]).images["image"], expected)


def test_a_row_of_another_tile_takes_the_grids_of_the_tiles_near_it_alone(tmp_path: Path) -> None:
    image = sky_image()
    write_tiles(tmp_path, image)
    for number in range(3, 9):  # far away
        turned = fits.PrimaryHDU(image, header(40 + 1_000_000 * number)).writeto
        turned(tmp_path / f"t{number}_g.fits")
    table = sources([90.0], [50.0])
    expected = open_coadd(tmp_path).read(table, [SPEC]).images["image"]
    reader = open_coadd(tmp_path)
    assert isinstance(reader, CoaddReader)
    lost = table.append_column("locality", pa.array([-1]))
    np.testing.assert_array_equal(reader.read(lost, [SPEC]).images["image"], expected)
    assert set(reader._tiling._footprints) <= {0, 1, 2}


def test_a_tile_of_another_scale_fails_its_rows(tmp_path: Path) -> None:
    write_tiles(tmp_path, sky_image())
    odd = header(160)
    odd["CDELT1"], odd["CDELT2"] = odd["CDELT1"] * 1.1, odd["CDELT2"] * 1.1
    fits.PrimaryHDU(sky_image(100), odd).writeto(tmp_path / "t2_g.fits", overwrite=True)
    batch = open_coadd(tmp_path).read(sources([50.0, 235.0], [50.0, 50.0]), [SPEC])
    assert reasons(batch) == {1: Reason.BAD_METADATA}


def test_nothing_to_read_is_refused_with_the_key(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"cutouts\.tiles: expected FITS files"):
        open_coadd(tmp_path).describe()
    write_tiles(tmp_path, sky_image())
    with pytest.raises(InputError, match=r"cutouts\.bands\.r: expected a file like"):
        open_coadd(tmp_path, bands={"g": "{tile}_g.fits", "r": "{tile}_r.fits"}).describe()
    info = open_coadd(tmp_path).describe()["g"]
    assert (info.files, info.size_pixels) == (3, None)
    assert info.pixel_scale_arcsec == pytest.approx(SCALE)
    assert info.bytes == sum(path.stat().st_size for path in tmp_path.iterdir())
