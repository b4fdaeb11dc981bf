from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from astropy import units
from astropy.io import fits
from astropy.wcs import WCS
from astropy.wcs.utils import proj_plane_pixel_area
from hypothesis import given, settings
from hypothesis import strategies as st

from lenspipe.cutouts.faults import UnreadableError
from lenspipe.cutouts.fits.fitsfile import Hdu
from lenspipe.cutouts.fits.skywcs import centre_position, disc_of, pixel_scale, sky_wcs
from lenspipe.cutouts.geometry import separation_deg


def _hdu(**cards: Any) -> Hdu:
    header = fits.Header({"SIMPLE": True, "BITPIX": -32, "NAXIS": 2, "NAXIS1": 60, "NAXIS2": 40})
    header.update(
        CTYPE1="RA---TAN", CTYPE2="DEC--TAN", CRVAL1=150.0, CRVAL2=2.0, CRPIX1=30.5, CRPIX2=20.5
    )
    header.update(CDELT1=-0.25 / 3600, CDELT2=0.25 / 3600)
    for key, value in cards.items():
        if value is None:
            del header[key]
        else:
            header[key] = value
    return Hdu({card.keyword: str(card).encode() for card in header.cards}, 2880)


def test_positions_equal_astropys_both_ways() -> None:
    hdu = _hdu(RADECSYS="ICRS", EQUINOX=2000.0)
    tile = sky_wcs(hdu)
    rng = np.random.default_rng(0)
    x, y = rng.uniform(0, 60, 50), rng.uniform(0, 40, 50)
    header = fits.Header.fromstring(
        b"".join(c for k, c in hdu.cards.items() if not k.startswith("RADECSYS"))
    )
    ra, dec = WCS(header).all_pix2world(x, y, 0)
    found = tile.pixels(ra, dec)
    np.testing.assert_allclose(found, (x, y), atol=1e-6)
    assert tile.centre_deg == pytest.approx((150.0, 2.0))
    assert tile.radius_deg == pytest.approx(np.hypot(60, 40) / 2 * 0.25 / 3600, rel=1e-4)


def test_old_rotation_matrices_and_cd_matrices_have_the_same_scale() -> None:
    assert pixel_scale(_hdu()) == pytest.approx(0.25)
    assert pixel_scale(_hdu(PC001001=-1.0, PC001002=0.0)) == pytest.approx(0.25)
    step = 0.3 / 3600 / np.sqrt(2)
    cd = {"CD1_1": -step, "CD1_2": step, "CD2_1": step, "CD2_2": step}
    assert pixel_scale(_hdu(CDELT1=None, CDELT2=None, **cd)) == pytest.approx(0.3)


def test_the_position_of_a_stamp_is_that_of_its_source_pixel() -> None:
    ra, dec = centre_position(_hdu(CRVAL1=0.0, CRVAL2=0.0, CRPIX1=31, CRPIX2=21))
    assert (ra % 360.0, dec) == pytest.approx((0.0, 0.0), abs=1e-9)


@pytest.mark.parametrize(
    "cards",
    [
        {"CTYPE1": "GLON-TAN", "CTYPE2": "GLAT-TAN"},
        {"CTYPE1": None, "CTYPE2": None},
        {"CDELT1": 0.0},
        {"CRVAL1": "x"},
        {"CTYPE1": "RA---XYZ", "CTYPE2": "DEC--XYZ"},
    ],
)
def test_headers_without_a_sky_are_unreadable(cards: dict[str, Any]) -> None:
    with pytest.raises(UnreadableError):
        sky_wcs(_hdu(**cards))


def test_old_names_of_cards_are_read_without_a_warning() -> None:
    """PC001002 for PC1_2, as Pan-STARRS writes: astropy would warn, and pytest would raise that."""
    turn = {"PC001001": 0.8, "PC001002": 0.6, "PC002001": -0.6, "PC002002": 0.8}
    today = {"PC1_1": 0.8, "PC1_2": 0.6, "PC2_1": -0.6, "PC2_2": 0.8}
    old, new = sky_wcs(_hdu(**turn)), sky_wcs(_hdu(**today))
    place = (np.array([150.001]), np.array([2.0005]))
    np.testing.assert_array_equal(old.pixels(*place), new.pixels(*place))
    straight = sky_wcs(_hdu()).pixels(*place)
    assert np.abs(np.subtract(old.pixels(*place), straight)).max() > 1.0


@settings(max_examples=40, deadline=None)
@given(
    st.floats(0.0, 359.9),
    st.floats(-89.0, 89.0),
    st.floats(-2e4, 2e4),
    st.floats(-2e4, 2e4),
    st.floats(0.0, 6.28),
)
def test_a_disc_holds_the_whole_image(
    ra: float, dec: float, x: float, y: float, turn: float
) -> None:
    step = 0.25 / 3600
    cd = {"CD1_1": -np.cos(turn), "CD1_2": np.sin(turn), "CD2_1": np.sin(turn)}
    cards = {**cd, "CD2_2": np.cos(turn)}
    hdu = _hdu(
        CRVAL1=ra,
        CRVAL2=dec,
        CRPIX1=x,
        CRPIX2=y,
        CDELT1=None,
        CDELT2=None,
        **{key: float(value) * step for key, value in cards.items()},
    )
    disc, tile = disc_of(hdu), sky_wcs(hdu)
    assert disc is not None
    corners = tile.wcs.all_pix2world([-0.5, 59.5, -0.5, 59.5], [-0.5, -0.5, 39.5, 39.5], 0)
    away = separation_deg(corners[0], corners[1], *disc.centre_deg)
    assert (away <= disc.radius_deg).all()


@pytest.mark.parametrize(
    ("dec", "lonpole", "by_cards"),
    [
        (90.0, None, False),  # the default of LONPOLE is 0 there, 180 elsewhere
        (90.0, 0.0, False),
        (90.0, 180.0, True),
        (-90.0, None, True),
        (-90.0, 0.0, False),
        (-90.0, 180.0, True),
        (89.9, None, True),
    ],
)
def test_a_disc_at_a_pole_is_where_the_wcs_is(
    dec: float, lonpole: float | None, by_cards: bool
) -> None:
    cards = {} if lonpole is None else {"LONPOLE": lonpole}
    hdu = _hdu(CRVAL2=dec, CRPIX1=-10000.0, CRPIX2=-6000.0, **cards)
    disc, tile = disc_of(hdu), sky_wcs(hdu)
    assert (disc is not None) == by_cards
    if disc is not None:
        ra, dec_found = map(np.atleast_1d, tile.centre_deg)
        away = separation_deg(ra, dec_found, *disc.centre_deg)
        assert away[0] + tile.radius_deg <= disc.radius_deg


@pytest.mark.parametrize("unit", ["deg", "arcmin", "arcsec", "mas", "rad"])
@pytest.mark.parametrize("matrix", ["CDELT", "CD", "PC"])
def test_units_of_the_axes_are_astropys(unit: str, matrix: str) -> None:
    per = units.deg.to(units.Unit(unit))
    step = 0.25 / 3600 * per
    cards: dict[str, Any] = {"CRVAL1": 150.0 * per, "CRVAL2": 2.0 * per}
    cards |= {"CUNIT1": unit, "CUNIT2": unit}
    if matrix == "CD":
        cards |= {"CDELT1": None, "CDELT2": None, "CD1_1": -step, "CD2_2": 1.2 * step}
    else:
        cards |= {"CDELT1": -step, "CDELT2": 1.2 * step}
    if matrix == "PC":
        cards |= {"PC1_1": 0.8, "PC1_2": -0.6, "PC2_1": 0.6, "PC2_2": 0.8}
    hdu = _hdu(**cards)
    header = fits.Header.fromstring(b"".join(hdu.cards.values()))
    expected = WCS(header)
    area = proj_plane_pixel_area(expected)
    assert pixel_scale(hdu) == pytest.approx(3600 * np.sqrt(area), rel=1e-9)
    assert sky_wcs(hdu).pixel_scale_arcsec == pixel_scale(hdu)
    place = expected.all_pix2world([31.0], [21.5], 0)
    np.testing.assert_allclose(sky_wcs(hdu).pixels(*place), [[31.0], [21.5]], atol=1e-6)


def test_other_units_are_refused_and_other_spellings_taken() -> None:
    for unit in ("m", "pixel", "hourangle"):
        told = f"card CUNIT1: expected one of deg, .*, found '{unit}'"
        for look in (pixel_scale, sky_wcs):
            with pytest.raises(UnreadableError, match=told):
                look(_hdu(CUNIT1=unit))
    straight = sky_wcs(_hdu()).pixels(np.array([150.001]), np.array([2.0005]))
    for unit in ("DEG", "degree", ""):
        hdu = _hdu(CUNIT1=unit, CUNIT2=unit)
        assert pixel_scale(hdu) == pytest.approx(0.25)
        found = sky_wcs(hdu).pixels(np.array([150.001]), np.array([2.0005]))
        np.testing.assert_array_equal(found, straight)


@pytest.mark.parametrize(
    "cards", [{"CTYPE1": "RA---CAR", "CTYPE2": "DEC--CAR"}, {"CROTA2": 30.0}, {"CUNIT1": "arcsec"}]
)
def test_what_the_cards_do_not_tell_of_a_disc_is_left_to_the_wcs(cards: dict[str, Any]) -> None:
    assert disc_of(_hdu(**cards)) is None
