from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from lenspipe.cutouts.base import ZeroPoint
from lenspipe.cutouts.photometric import (
    column_values,
    factors,
    header_card,
    needed_columns,
    zero_points,
)
from lenspipe.errors import HopelessError, InputError

TABLE = pa.table({"zp_g": [25.0, None, 27.5], "exp_g": [1, 100, 0], "name": ["a", "b", "c"]})
NONE = np.full(3, np.nan)


def test_a_star_keeps_its_magnitude() -> None:
    flux, zero_point, target = 250.0, 25.0, 27.3
    moved = flux * factors(np.array([zero_point]), target)[0]
    assert np.isclose(zero_point - 2.5 * np.log10(flux), target - 2.5 * np.log10(moved))


def test_every_source_of_zero_points() -> None:
    def found(cards: np.ndarray = NONE, **block: object) -> list[float]:
        return list(zero_points(ZeroPoint.model_validate(block), "g", TABLE, cards).tolist())

    nan = np.nan
    np.testing.assert_equal(found(column="zp_{band}"), [25.0, nan, 27.5])
    np.testing.assert_equal(found(constant=24.0), [24.0] * 3)
    np.testing.assert_equal(found(constant={"g": 23.0}), [23.0] * 3)
    np.testing.assert_equal(found(exptime_column="exp_{band}"), [25.0, 30.0, nan])
    np.testing.assert_equal(found(exptime_column="exp_{band}", base_mag=0.0), [0.0, 5.0, nan])
    cards = np.array([10.0, -1.0, nan])
    np.testing.assert_equal(found(cards, exptime_header="EXPTIME"), [27.5, nan, nan])
    np.testing.assert_equal(found(np.array([26.0, -999.0, np.inf]), header="ZP"), [26.0, nan, nan])


def test_what_a_zero_point_needs_is_named() -> None:
    needed = needed_columns(ZeroPoint(column="zp_{band}"), ("g", "r"))
    assert [column.name for column in needed] == ["zp_g", "zp_r"]
    assert needed_columns(None, ("g",)) == ()
    assert header_card(ZeroPoint(header="MAGZERO")) == "MAGZERO"
    assert header_card(ZeroPoint(exptime_header="EXPTIME")) == "EXPTIME"
    assert header_card(ZeroPoint(constant=1.0)) is None


def test_missing_columns_texts_and_bands_are_refused() -> None:
    with pytest.raises(HopelessError, match=r"catalogue column x: .* no such column"):
        column_values(TABLE, "x")
    with pytest.raises(HopelessError, match=r"catalogue column name: .* string"):
        column_values(TABLE, "name")
    with pytest.raises(InputError, match=r"constant\.r"):
        zero_points(ZeroPoint(constant={"g": 1.0}), "r", TABLE, NONE)
