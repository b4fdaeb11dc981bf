from __future__ import annotations

import gzip
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pytest
from astropy.io import fits
from hypothesis import given, settings
from hypothesis import strategies as st

from lenspipe.cutouts.faults import READ_ERRORS, UnreadableError
from lenspipe.cutouts.fits import fitsfile
from lenspipe.cutouts.fits.fitsfile import card_number, card_value, open_fits


def _pixels(dtype: str = "f4") -> np.ndarray[Any, Any]:
    return (np.random.default_rng(2).normal(100, 20, (30, 20))).astype(dtype)


def _read(path: Path | str, hdu: int | str | None = None, whole: bool = False) -> Any:
    with open_fits(str(path), whole=whole) as file:
        image = file.image(hdu)
        return np.array(image.rows(0, image.shape[0]))


@pytest.mark.parametrize(
    "value", [1, -7, 2.5, 1e-12, True, False, "text", "it's", "", "with / slash", -1.5e300]
)
def test_cards_are_read_as_astropy_reads_them(value: Any) -> None:
    card = fits.Card("KEY", value, "a comment")
    assert card_value(str(card).encode()) == fits.Card.fromstring(str(card)).value


def test_exponents_with_d_and_cards_without_value() -> None:
    assert card_value(b"KEY     = 1.5D-3 / old Fortran".ljust(80)) == 1.5e-3
    assert card_value(b"COMMENT just words".ljust(80)) is None
    assert card_value(b"KEY     = (1, 2)".ljust(80)) is None


@pytest.mark.parametrize("dtype", ["u1", "i2", "i4", "i8", "f4", "f8", "u2"])
@pytest.mark.parametrize("whole", [False, True])
def test_every_pixel_type_equals_astropys(tmp_path: Path, dtype: str, whole: bool) -> None:
    path = tmp_path / "a.fits"
    fits.PrimaryHDU(_pixels(dtype)).writeto(path)
    np.testing.assert_array_equal(_read(path, whole=whole), fits.getdata(path))


def test_scaled_integers_with_blank_equal_astropys(tmp_path: Path) -> None:
    path = tmp_path / "a.fits"
    hdu = fits.PrimaryHDU(_pixels("i2"))
    hdu.header["BLANK"] = int(hdu.data[3, 4])
    hdu.header["BSCALE"], hdu.header["BZERO"] = 0.5, 10.0
    hdu.writeto(path)
    found = _read(path)
    assert np.isnan(found[3, 4])
    np.testing.assert_allclose(found, fits.getdata(path))


@pytest.mark.parametrize("kind", ["RICE_1", "GZIP_2", "HCOMPRESS_1"])
def test_compressed_images_equal_astropys_in_any_strip(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "a.fits.fz"
    fits.CompImageHDU(_pixels(), compression_type=kind).writeto(path)
    with open_fits(str(path)) as file:
        image = file.image(None)
        assert image.shape == (30, 20)
        found = image.rows(7, 19)
    np.testing.assert_array_equal(found, fits.getdata(path, 1)[7:19])


def test_units_by_number_name_and_first_image(tmp_path: Path) -> None:
    path = tmp_path / "a.fits"
    first, second = _pixels(), _pixels() + 1
    fits.HDUList(
        [fits.PrimaryHDU(), fits.ImageHDU(first, name="G"), fits.ImageHDU(second, name="R")]
    ).writeto(path)
    np.testing.assert_array_equal(_read(path), first)
    np.testing.assert_array_equal(_read(path, "r"), second)
    np.testing.assert_array_equal(_read(path, 2), second)
    for wrong in (0, 3, "B"):
        with pytest.raises(UnreadableError, match="HDU"):
            _read(path, wrong)


def test_a_gzip_file_that_becomes_far_more_than_it_is_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At most a hundred times its size, or 512 MiB (here 1 MiB)."""
    monkeypatch.setattr(fitsfile, "_MOST_UNPACKED_BYTES", 1024 * 1024)
    for name, pixels in (("empty", np.zeros((2000, 2000), "u1")), ("small", _pixels())):
        path = tmp_path / f"{name}.fits"
        fits.PrimaryHDU(pixels).writeto(path)
        (tmp_path / f"{name}.fits.gz").write_bytes(gzip.compress(path.read_bytes()))
    np.testing.assert_array_equal(_read(tmp_path / "small.fits.gz"), _pixels())
    with pytest.raises(UnreadableError, match="refused"):
        _read(tmp_path / "empty.fits.gz")


def test_gzip_and_remote_files(tmp_path: Path) -> None:
    path = tmp_path / "a.fits"
    fits.HDUList([fits.PrimaryHDU(), fits.ImageHDU(_pixels())]).writeto(path)
    (tmp_path / "a.fits.gz").write_bytes(gzip.compress(path.read_bytes()))
    np.testing.assert_array_equal(_read(tmp_path / "a.fits.gz"), _pixels())
    fits.CompImageHDU(_pixels()).writeto(tmp_path / "b.fits.fz")
    store = fsspec.filesystem("memory")
    for name in ("a.fits", "a.fits.gz", "b.fits.fz"):
        store.pipe_file(f"/fitsfile/{name}", (tmp_path / name).read_bytes())
        for whole in (False, True):
            found = _read(f"memory://fitsfile/{name}", whole=whole)
            np.testing.assert_array_equal(found, _read(tmp_path / name))
    with pytest.raises(FileNotFoundError):
        _read("memory://fitsfile/none.fits")


@pytest.mark.parametrize("whole", [False, True])
def test_a_file_cut_anywhere_is_unreadable_or_whole(tmp_path: Path, whole: bool) -> None:
    path, cut = tmp_path / "a.fits", tmp_path / "cut.fits"
    fits.PrimaryHDU(_pixels()).writeto(path)
    data = path.read_bytes()
    for length in (0, 5, 80, 2879, 2880, 3000, 2880 + 2399):
        cut.write_bytes(data[:length])
        with pytest.raises(UnreadableError):
            _read(cut, whole=whole)
    cut.write_bytes(data[: 2880 + 2400])  # only the padding is lost
    np.testing.assert_array_equal(_read(cut, whole=whole), _pixels())


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2879), st.integers(1, 255))
def test_a_flipped_header_byte_never_raises_anything_else(
    tmp_path_factory: pytest.TempPathFactory, where: int, flip: int
) -> None:
    path = tmp_path_factory.mktemp("flip") / "a.fits"
    fits.PrimaryHDU(_pixels()).writeto(path)
    data = bytearray(path.read_bytes())
    data[where] ^= flip
    path.write_bytes(bytes(data))
    try:
        found = _read(path)
    except (FileNotFoundError, *READ_ERRORS) as error:
        assert isinstance(error, UnreadableError)
    else:
        assert found.ndim == 2


def test_a_number_that_is_none_is_nan(tmp_path: Path) -> None:
    path = tmp_path / "a.fits"
    fits.PrimaryHDU(_pixels(), fits.Header({"ZP": 25.5, "WORD": "x"})).writeto(path)
    with open_fits(str(path)) as file:
        hdu = file.image(None).hdu
    assert card_number(hdu, "ZP") == 25.5
    assert np.isnan(card_number(hdu, "WORD"))
    assert np.isnan(card_number(hdu, "NONE"))


def _odd_files(folder: Path) -> None:
    """Headers and data that a parser of its own could read otherwise than astropy."""
    noise = _pixels()
    torrent = fits.PrimaryHDU(noise)
    for number in range(400):
        torrent.header.add_comment(f"END of nothing {number} = 'x' / BITPIX")
        torrent.header.add_history("SIMPLE  =                    F")
    torrent.writeto(folder / "torrent.fits")
    long = fits.PrimaryHDU(noise, fits.Header({"LONG": "it''s & / " * 30, "ZP": 25.5}))
    long.writeto(folder / "continue.fits")
    holes = noise.astype("f8")
    holes[3:5, 2:9] = np.nan
    fits.PrimaryHDU(holes).writeto(folder / "nan.fits")
    for dtype in ("i2", "i4", "i8", "u1"):
        unit = fits.ImageHDU(_pixels(dtype), name="SCI")
        unit.header["BSCALE"], unit.header["BZERO"] = 0.25, -3.0
        unit.header["BLANK"] = int(unit.data[1, 1])
        fits.HDUList([fits.PrimaryHDU(), fits.ImageHDU(noise * 2), unit]).writeto(
            folder / f"{dtype}.fits"
        )
    fits.PrimaryHDU(noise[None, None]).writeto(folder / "cube.fits")
    fits.PrimaryHDU(noise).writeto(folder / "bare.fits")
    data = (folder / "bare.fits").read_bytes()
    (folder / "bare.fits").write_bytes(data[: 2880 + noise.nbytes])


@pytest.mark.filterwarnings("ignore:File may have been truncated")  # one file has no padding
@pytest.mark.filterwarnings("ignore:Invalid 'BLANK'")
def test_odd_headers_and_data_equal_astropys(tmp_path: Path) -> None:
    _odd_files(tmp_path)
    for path in sorted(tmp_path.glob("*.fits")):
        with fits.open(path) as units, open_fits(str(path), whole=True) as file:
            for index, unit in enumerate(units):
                if unit.header["NAXIS"] < 2:
                    continue
                image = file.image(index)
                found = image.rows(0, image.shape[0])
                np.testing.assert_allclose(found, np.squeeze(unit.data), err_msg=path.name)
                for key in ("NAXIS1", "ZP", "EXTNAME"):
                    assert image.hdu.value(key) == unit.header.get(key)


def _with_cards(path: Path, cards: list[str]) -> Path:
    """More cards at the end of the primary header."""
    raw = path.read_bytes()
    end = raw.index(b"END     ".ljust(80))
    more = b"".join(card.ljust(80).encode() for card in cards)
    head = (raw[:end] + more + b"END").ljust(2880)
    assert len(head) == 2880
    path.write_bytes(head + raw[2880:])
    return path


@pytest.mark.parametrize(
    ("cards", "told"),
    [
        (["BSCALE  = 2.0", "BSCALE  = 3.0"], "card BSCALE: expected once, found 2.0 and 3.0"),
        (["BZERO   = 2.0", "BZERO   = 3.0"], "card BZERO: .* 2.0 and 3.0"),
        (["BLANK   = 2", "BLANK   = 3"], "card BLANK: .* 2 and 3"),
        (["NAXIS   = 1"], "card NAXIS: .* 2 and 1"),
        (["NAXIS1  = 10"], "card NAXIS1: .* 20 and 10"),
        (["NAXIS2  = 10"], "card NAXIS2: .* 30 and 10"),
        (["BITPIX  = 8"], "card BITPIX: .* 16 and 8"),
    ],
)
def test_a_card_of_the_structure_with_two_values_is_refused(
    tmp_path: Path, cards: list[str], told: str
) -> None:
    """Astropy itself takes one of them for the shape and the other for the values."""
    path = tmp_path / "a.fits"
    fits.PrimaryHDU(_pixels("i2")).writeto(path)
    with pytest.raises(UnreadableError, match=told):
        _read(_with_cards(path, cards))


def test_cards_that_stand_twice_and_say_the_same_are_read(tmp_path: Path) -> None:
    path = tmp_path / "a.fits"
    fits.PrimaryHDU(_pixels("i2")).writeto(path)
    wanted = fits.getdata(path)
    cards = ["NAXIS1  = 20", "BITPIX  = 16 / again", "OBJECT  = 'a'", "OBJECT  = 'b'"]
    np.testing.assert_array_equal(_read(_with_cards(path, cards)), wanted)
